"""Model folder that is ready to dub: recipe, codec, generator, editor and its experts.

    DIR/recipe.yaml
    DIR/generator.safetensors  DIR/editor.safetensors  DIR/lip.safetensors  DIR/texture.safetensors
    DIR/networks.json          (digests of codec and audio encoder that are loaded from a path)
    DIR/model_card.md          (shipped bundle)

``tiny`` names the bundle inside the package.
"""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from xdub.config import EXPERTS, SHIPPED_MODEL, Recipe, expert_of, load_recipe, located
from xdub.config.shipped import shipped_weights
from xdub.errors import UserError
from xdub.files.atomic import atomic_folder
from xdub.files.run_folder import ADAPTER_WEIGHTS, MODEL_WEIGHTS, RunFolder
from xdub.files.tensors import write_tensors
from xdub.model.audio_encoder import AudioEncoder, load_audio_encoder
from xdub.model.backbone import Backbone
from xdub.model.build import build_backbone, load_trained
from xdub.model.bundle_networks import check_recorded_networks, record_networks
from xdub.model.codec import Codec, load_codec
from xdub.model.licences import require_base_licence, require_licence
from xdub.model.lora import load_expert, set_expert, whole_state
from xdub.model.offload import backbone_on
from xdub.model.published import PublishedFolder, published_folder, published_recipe
from xdub.precision import dtype_of, open_device

RECIPE = "recipe.yaml"
"""File of a model folder that holds the whole recipe."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Networks in eval mode and the recipe's precision, on one device.

    ``generator`` is None in a folder without one.
    """

    path: Path
    recipe: Recipe
    codec: Codec
    audio_encoder: AudioEncoder
    editor: Backbone
    generator: Backbone | None
    experts: tuple[str, ...]


def bundle_path(name_or_path: str | Path) -> Path:
    """Return the folder of a bundle; ``tiny`` is the one in the package."""
    if str(name_or_path) == SHIPPED_MODEL:
        return shipped_weights()
    return Path(name_or_path)


def bundle_recipe(name_or_path: str | Path, settings: Sequence[str] = ()) -> Recipe | None:
    """Return the recipe of a bundle with ``settings``; None if there is no bundle."""
    path = bundle_path(name_or_path) / RECIPE
    return load_recipe(path, settings, recorded=True) if path.is_file() else None


def bundle_weights(folder: Path, phase: str) -> Path:
    """Return the file of a phase's weights in a model folder."""
    return folder / f"{phase}.safetensors"


def exported_weights(run: RunFolder, phase: str) -> Path:
    """Return the file of the weights that a phase's training exports in a run's folder."""
    return run.phase(phase).export / (MODEL_WEIGHTS if expert_of(phase) is None else ADAPTER_WEIGHTS)


def write_bundle(run: RunFolder, recipe: Recipe, out: Path, phases: Sequence[str] = ()) -> Path:
    """Copy the exports of ``phases`` (default: all that the recipe trains) into the model folder ``out``; return it.

    The folder appears at once, complete. Its recipe has absolute paths of the frozen networks. Raise UserError if a
    phase has no export.
    """
    with atomic_folder(out) as temporary:
        for phase in phases or recipe.phase_names:
            source = exported_weights(run, phase)
            if not source.is_file():
                raise UserError(f"{source} is missing: train the phase {phase} first")
            shutil.copyfile(source, bundle_weights(temporary, phase))
        (temporary / RECIPE).write_text(located(recipe).to_yaml(), "utf-8")
        record_networks(recipe, temporary)
    return out


def same_bundle(run: RunFolder, recipe: Recipe, bundle: Path) -> bool:
    """Return whether the bundle holds the latest exports of a recipe's phases, and the recipe."""
    for phase in recipe.phase_names:
        copy, source = bundle_weights(bundle, phase), exported_weights(run, phase)
        if not (copy.is_file() and source.is_file() and filecmp.cmp(copy, source, shallow=False)):
            return False
    path = bundle / RECIPE
    return path.is_file() and path.read_text("utf-8") == located(recipe).to_yaml()


def load_bundle(
    name_or_path: str | Path = SHIPPED_MODEL,
    device: str | torch.device = "cpu",
    *,
    generator: bool = True,
    settings: Sequence[str] = (),
) -> Bundle:
    """Load a bundle, without the generator if ``generator=False``; ``settings`` override values of its recipe.

    A text NAME:DIR loads a published editor (`xdub.model.published`). The licence of a published editor, also of one
    under the adapters of a bundle, must have been accepted. Every network computes in the precision of its training
    (`xdub.precision`), on the CPU as well. UserError names a missing file.
    """
    if (published := published_folder(name_or_path)) is not None:
        return _published_bundle(published, open_device(device), settings)
    path = bundle_path(name_or_path)
    for name in (RECIPE, bundle_weights(path, "editor").name):
        if not (path / name).is_file():
            raise UserError(
                f"{path} is not a model folder: it has no {name}; `xdub bootstrap` writes RUN/bundle, and a "
                "published editor is named NAME:DIR, e.g. tbdub-student:DIR"
            )
    recipe = load_recipe(path / RECIPE, settings, recorded=True)
    require_base_licence(recipe)
    check_recorded_networks(recipe, path)
    device, codec = open_device(device), load_codec(recipe.codec)
    editor = load_trained(recipe, "editor", codec, bundle_weights(path, "editor"))
    experts = tuple(name for name in EXPERTS if bundle_weights(path, name).is_file())
    for name in experts:
        load_expert(editor, name, bundle_weights(path, name), recipe.lora)
    set_expert(editor, None)
    inpainter = None
    if generator and bundle_weights(path, "generator").is_file():
        inpainter = load_trained(recipe, "generator", codec, bundle_weights(path, "generator"))
        precision, offload = recipe.for_phase("generator").precision, recipe.pairs.offload == "blocks"
        inpainter = backbone_on(inpainter, precision, device, offload=offload)
    precision, offload = recipe.for_phase("editor").precision, recipe.dub.offload == "blocks"
    return Bundle(
        path=path,
        recipe=recipe,
        codec=codec.computing_in(dtype_of(recipe.train.precision)).to(device),
        audio_encoder=load_audio_encoder(recipe.audio).to(device),
        editor=backbone_on(editor, precision, device, offload=offload),
        generator=inpainter,
        experts=experts,
    )


def _published_bundle(published: PublishedFolder, device: torch.device, settings: Sequence[str]) -> Bundle:
    """Load a published editor with its codec and audio encoder."""
    require_licence(published.editor.name)
    recipe = published_recipe(published, settings)
    codec = load_codec(recipe.codec)
    return Bundle(
        path=published.path,
        recipe=recipe,
        codec=codec.computing_in(dtype_of(recipe.train.precision)).to(device),
        audio_encoder=load_audio_encoder(recipe.audio).to(device),
        editor=load_published_editor(recipe, codec, device, offload=recipe.dub.offload == "blocks"),
        generator=None,
        experts=(),
    )


def load_published_editor(
    recipe: Recipe, codec: Codec, device: str | torch.device, *, offload: bool
) -> Backbone:
    """Load the editor that a recipe names as its open weights, in eval mode, frozen, in the precision of the phase."""
    precision = recipe.for_phase("editor").precision
    editor = build_backbone(recipe, "editor", codec, seed=0, dtype=dtype_of(precision))
    editor.eval().requires_grad_(False)
    return backbone_on(editor, precision, device, offload=offload)


def write_weights(model: Backbone, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a backbone without adapters as safetensors."""
    write_tensors({name: value.to(dtype) for name, value in whole_state(model).items()}, path)
