"""Rules that a recipe must keep before a phase trains. A recipe that a finished run recorded may break them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xdub.config.embedders import check_threshold
from xdub.config.phases import expert_of, in_model
from xdub.errors import UserError
from xdub.geometry import SYNC_FRAMES

if TYPE_CHECKING:
    from xdub.config.recipe import Recipe


def check_new_recipe(recipe: Recipe) -> None:
    """Raise UserError for a recipe that no new run may have, whichever of its phases the run trains."""
    check_threshold(recipe.perception.identity, recipe.identity_threshold)
    _refuse(recipe, _failed_targets(recipe))
    for name in recipe.phase_names:
        _refuse(recipe, _failed_decoding(recipe, name))


def check_phase(recipe: Recipe, name: str) -> None:
    """Raise UserError for settings with which a phase cannot train, and which only its worker would notice."""
    _refuse(recipe, _failed_targets(recipe) if has_adapter(recipe, name) else _frozen_settings(recipe, name))
    _refuse(recipe, _failed_decoding(recipe, name))
    _refuse(recipe, _failed_latents(recipe, name))


def has_adapter(recipe: Recipe, name: str) -> bool:
    """Return whether a phase trains an adapter on frozen weights, and not all weights of its network."""
    return expert_of(name) is not None or tunes_open_weights(recipe, name)


def tunes_open_weights(recipe: Recipe, name: str) -> bool:
    """Return whether generator or editor train an adapter on open weights (`train.tune`)."""
    return in_model(name) and expert_of(name) is None and recipe.for_phase(name).tune == "adapter"


def nothing_frozen(setting: str, value: str, phase: str) -> str:
    """Return the message for a setting of frozen layers in a phase that has none."""
    return (
        f"{setting}={value}: the phase {phase} trains all weights of its network, so no frozen layer is left for the "
        f"setting; set it for a phase with an adapter, e.g. --set phases.lip.{setting.split('.')[1]}={value}"
    )


def _refuse(recipe: Recipe, failures: Iterator[str]) -> None:
    for failed in failures:
        raise UserError(f"recipe {recipe.name}: {failed}")


def _failed_targets(recipe: Recipe) -> Iterator[str]:
    return recipe.lora.failed_targets("lora", recipe.model.kind, recipe.model.num_layers)


def _frozen_settings(recipe: Recipe, name: str) -> Iterator[str]:
    """Yield a message for every setting of frozen layers in a phase that has none."""
    train = recipe.for_phase(name)
    if train.base_dtype is not None:
        yield nothing_frozen("train.base_dtype", train.base_dtype, name)
    if train.offloads("blocks"):
        yield nothing_frozen("train.offload", train.offload, name)


def _failed_decoding(recipe: Recipe, name: str) -> Iterator[str]:
    """Yield a message for a phase that decodes fewer frames than a SyncNet judges."""
    if not in_model(name):
        return
    phase, geometry = recipe.phase(name), recipe.codec.geometry
    frames = geometry.frames(phase.decode_latents)
    if phase.sync_weight and frames < SYNC_FRAMES:
        yield (
            f"phases.{name}.decode_latents={phase.decode_latents} latents are {frames} frames, and a SyncNet judges "
            f"{SYNC_FRAMES} or more: use {geometry.latent_frames(SYNC_FRAMES)} or more"
        )


def _failed_latents(recipe: Recipe, name: str) -> Iterator[str]:
    """Yield a message for a phase that would read cached latents in place of the pixels that it needs."""
    if not in_model(name) and recipe.for_phase(name).latents == "cached":
        yield f"{name}.latents=cached: a SyncNet trains on pixels; --set {name}.latents=live"
