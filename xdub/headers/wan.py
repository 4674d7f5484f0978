"""Check of the open weights that a backbone of kind ``wan`` starts from: names and shapes of their tensors."""

from __future__ import annotations

from pathlib import Path

from xdub.config import Recipe
from xdub.files.weight_folder import WeightFolder
from xdub.headers.files import Fault, Shapes
from xdub.perception.open_models.shapes import first_difference, wan
from xdub.perception.open_models.wan_config import check_stated
from xdub.perception.open_models.wan_files import find_wan
from xdub.perception.open_models.wan_names import beyond_wan, original_name

FIX = "name a release of Wan, X-Dub or TBDub"
"""Fix for a path without such weights."""
OTHER = "use the recipe of these weights, or the weights of this recipe"
"""Fix for weights of another network than the recipe's."""
SPEECH = {"published": "audio_embedding.proj_in.weight", "frames": "audio_adapter.proj.weight"}
"""Form of speech -> tensor of shape [width, audio.dim] in weights that have it."""


def check_open_weights(recipe: Recipe, path: Path) -> None:
    """Raise UserError if a file or folder does not hold a Wan with the recipe's shapes, settings and form of speech.

    The message names the first tensor that is missing, left over or of another shape.
    """
    weights = _wan_files(path)
    model = recipe.model
    assert model.text_dim is not None
    shapes = {original_name(name): shape for name, shape in weights.shapes.items()}
    expected = wan(
        model.hidden_size,
        model.ffn_dim or int(model.ffn_ratio * model.hidden_size),
        recipe.codec.channels,
        model.num_layers,
        text=model.text_dim,
        patch=model.patch,
    )
    plain = {name: shape for name, shape in shapes.items() if not beyond_wan(name)}
    if difference := first_difference(plain, expected):
        raise Fault(f"model.base={path}: does not fit the recipe's network: {difference}", OTHER)
    _check_speech(recipe, path, shapes)
    check_stated(weights, num_heads=model.num_heads)


def _wan_files(path: Path) -> WeightFolder:
    """Return the files of the Wan at a path. Raise UserError if there is none, or one that cannot be read."""
    if (weights := find_wan(path)) is not None:
        return weights
    if path.is_file() and path.suffix != ".safetensors":
        raise Fault(
            f"model.base={path}: is no .safetensors file, and open weights are read from those alone", FIX
        )
    folders = (path, path / "transformer")
    if path.is_dir() and not any(any(folder.glob("*.safetensors")) for folder in folders):
        raise Fault(f"model.base={path}: holds no .safetensors file", FIX)
    raise Fault(f"model.base={path}: holds another network than a Wan", FIX)


def _check_speech(recipe: Recipe, path: Path, shapes: Shapes) -> None:
    """Raise Fault for weights that read speech in another form or of another width than the recipe's network."""
    form = recipe.model.speech
    if form == "published" and SPEECH["published"] not in shapes:
        raise Fault(
            f"model.base={path}: is no published editor, because {SPEECH['published']} is missing, but "
            "model.speech=published starts from one",
            OTHER,
        )
    if form != "published" and SPEECH["published"] in shapes:
        raise Fault(
            f"model.base={path}: is a published editor, because it has {SPEECH['published']}, but "
            f"model.speech={form} has audio layers of its own",
            OTHER,
        )
    width = shapes[SPEECH[form]][1] if SPEECH[form] in shapes else recipe.audio.dim
    if width != recipe.audio.dim:
        raise Fault(
            f"model.base={path}: reads speech features of width {width}, but audio.dim={recipe.audio.dim}",
            OTHER,
        )
