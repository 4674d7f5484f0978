"""From a recipe to a network; the only place that knows how phases differ in their inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from xdub.config import inpaints
from xdub.errors import UserError
from xdub.model.dit import DiTConfig, VideoDiT


def dit_config(recipe, phase: str) -> DiTConfig:
    """Backbone configuration: a phase that inpaints has z_mask on its input channels (B.2)."""
    return DiTConfig(
        **vars(recipe.model),
        geometry=recipe.codec.geometry,
        masked_input=inpaints(phase),
        audio_dim=recipe.audio.dim,
    )


def build_dit(recipe, phase: str, codec=None, *, seed: int | None = None) -> VideoDiT:
    """Randomly initialised backbone for ``phase``; ``seed`` fixes the initialisation without touching global state."""
    latent_std = None if codec is None else codec.channel_std
    if seed is None:
        return VideoDiT(dit_config(recipe, phase), latent_std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VideoDiT(dit_config(recipe, phase), latent_std)


def load_state(model: VideoDiT, state: dict[str, Tensor], where: str) -> None:
    """Load weights; a generator's weights also start an editor (its z_mask input columns are dropped).

    Generator and editor share every other tensor: audio and reference pathways carry over.
    """
    key = "patch_embed.weight"
    wanted = model.patch_embed.weight.shape[1]
    if key in state and state[key].shape[1] == 2 * wanted and not model.cfg.masked_input:
        state = {**state, key: state[key][:, wanted:]}  # columns are [z_mask, z_t]
    missing, unexpected = model.load_state_dict(_matching(model, state, where), strict=False)
    if missing or unexpected:
        raise UserError(f"{where} does not fit the model: missing {missing[:3]}, unexpected {unexpected[:3]}")


def _matching(model: VideoDiT, state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    own = model.state_dict()
    for name, value in state.items():
        if name in own and own[name].shape != value.shape:
            raise UserError(
                f"{where}: {name} has shape {tuple(value.shape)}, the recipe's model has {tuple(own[name].shape)}"
            )
    return state
