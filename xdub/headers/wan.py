"""Check of the open weights that a backbone of kind ``wan`` starts from: names and shapes of their tensors."""

from __future__ import annotations

import json
from pathlib import Path

from xdub.config import Recipe
from xdub.headers.files import INDEX, Fault, Shapes, read_header
from xdub.perception.open_models.shapes import first_difference, wan
from xdub.perception.open_models.wan_names import original_name

FIX = "name a release of Wan, X-Dub or TBDub"
"""Fix for a path without such weights."""
DAMAGED = "copy or download it again"
"""Fix for a damaged file."""
BEYOND = {"audio_embedding", "audio_adapter", "mask_embedding", "audio_attn", "norm4"}
"""Parts of the names of tensors that a plain Wan does not have; weights may have them or not."""
SPEECH = "audio_embedding.proj_in.weight"
"""Tensor of shape [width, audio.dim] in the weights of a published editor."""


def check_open_weights(recipe: Recipe, path: Path) -> None:
    """Raise Fault if a file or folder does not hold a Wan with the shapes of the recipe's network.

    The fault names the first tensor that is missing, left over or of another shape.
    """
    shapes = _wan_shapes(path)
    model = recipe.model
    assert model.text_dim is not None
    expected = wan(
        model.hidden_size,
        model.ffn_dim or int(model.ffn_ratio * model.hidden_size),
        recipe.codec.channels,
        model.num_layers,
        text=model.text_dim,
        patch=model.patch,
    )
    plain = {name: shape for name, shape in shapes.items() if not BEYOND & set(name.split("."))}
    if difference := first_difference(plain, expected):
        raise Fault(
            f"model.base={path}: does not fit the recipe's network: {difference}",
            "use the recipe of these weights, or the weights of this recipe",
        )
    width = shapes.get(SPEECH, (0, recipe.audio.dim))[1]
    if model.speech == "published" and width != recipe.audio.dim:
        raise Fault(
            f"model.base={path}: reads speech features of width {width}, but audio.dim={recipe.audio.dim}",
            "use the recipe of these weights, or the weights of this recipe",
        )


def _wan_shapes(path: Path) -> Shapes:
    """Return the tensors of the Wan in a file, a folder or a pipeline's folder under their original names."""
    folder = path / "transformer" if (path / "transformer").is_dir() else path
    indices = [] if path.is_file() else sorted(folder.glob(f"*{INDEX}"))
    groups = [[path]] if path.is_file() else [_listed(index) for index in indices]
    if not path.is_file():
        groups += [[file] for file in sorted(folder.glob("*.safetensors"))]
    if path.suffix != ".safetensors" and not any(groups):
        raise Fault(f"model.base={path}: holds no .safetensors file", FIX)
    for files in groups:
        shapes = {original_name(name): shape for file in files for name, shape in _header(file).items()}
        if {"patch_embedding.weight", "head.head.weight"} <= shapes.keys():
            return shapes
    raise Fault(f"model.base={path}: holds another network than a Wan", FIX)


def _header(path: Path) -> Shapes:
    return read_header(path, DAMAGED).shapes if path.suffix == ".safetensors" else {}


def _listed(index: Path) -> list[Path]:
    """Return the files that an index lists. Raise Fault for a damaged index."""
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Fault(f"{index}: does not list the files of a network", DAMAGED) from error
    return [index.parent / str(name) for name in sorted(names)]
