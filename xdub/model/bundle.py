"""A dub-ready model folder: recipe, codec, generator, editor and its experts.

    DIR/recipe.yaml
    DIR/generator.safetensors  DIR/editor.safetensors  DIR/lip.safetensors  DIR/texture.safetensors
    DIR/model_card.md          (shipped bundle)

``tiny`` names the bundle inside the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from xdub.config import EXPERTS, SHIPPED_MODEL, Recipe
from xdub.errors import UserError
from xdub.files.shipped import shipped_weights
from xdub.model.audio_encoder import AudioEncoder, load_audio_encoder
from xdub.model.backbone import Backbone
from xdub.model.build import load_backbone
from xdub.model.codec import Codec, load_codec
from xdub.model.lora import load_expert, set_expert


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Networks in eval mode, fp32, on one device. ``generator`` is None in a folder that has none."""

    path: Path
    recipe: Recipe
    codec: Codec
    audio_encoder: AudioEncoder
    editor: Backbone
    generator: Backbone | None
    experts: tuple[str, ...]


def bundle_path(name_or_path: str | Path) -> Path:
    """Folder of a bundle: ``tiny`` is the one in the package."""
    if str(name_or_path) == SHIPPED_MODEL:
        return shipped_weights()
    return Path(name_or_path)


def load_bundle(
    name_or_path: str | Path = SHIPPED_MODEL, device: str = "cpu", *, generator: bool = True
) -> Bundle:
    """Load a bundle; with ``generator=False`` only what dubbing needs. Raises UserError naming what is missing."""
    from xdub.config import load_recipe

    path = bundle_path(name_or_path)
    for name in ("recipe.yaml", "editor.safetensors"):
        if not (path / name).is_file():
            raise UserError(
                f"{path} is not a model folder: it has no {name}; `xdub bootstrap` writes RUN/bundle"
            )
    recipe = load_recipe(path / "recipe.yaml")
    codec = load_codec(recipe.codec)
    editor = load_backbone(recipe, "editor", codec, path / "editor.safetensors")
    experts = tuple(name for name in EXPERTS if (path / f"{name}.safetensors").is_file())
    for name in experts:
        load_expert(editor, name, path / f"{name}.safetensors", recipe.lora)
    set_expert(editor, None)
    has_generator = generator and (path / "generator.safetensors").is_file()
    return Bundle(
        path=path,
        recipe=recipe,
        codec=codec.to(device),
        audio_encoder=load_audio_encoder(recipe.audio),
        editor=editor.to(device),
        generator=load_backbone(recipe, "generator", codec, path / "generator.safetensors").to(device)
        if has_generator
        else None,
        experts=experts,
    )


def save_backbone(model: Backbone, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a backbone without adapters as safetensors."""
    from safetensors.torch import save_file

    state = {
        name.replace(".base_layer", ""): value.detach().cpu().to(dtype).contiguous()
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }
    save_file(state, path)
