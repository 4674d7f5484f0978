"""The trained generator of a pair run, in every folder that a user may name."""

from __future__ import annotations

from pathlib import Path

import torch

from xdub.config import Recipe
from xdub.errors import UserError
from xdub.files.run_folder import EXPORT, MODEL_WEIGHTS
from xdub.model.backbone import Backbone
from xdub.model.build import load_trained
from xdub.model.bundle import bundle_path
from xdub.model.codec import Codec
from xdub.model.offload import backbone_on

FILES = (
    MODEL_WEIGHTS,
    f"{EXPORT}/{MODEL_WEIGHTS}",
    f"generator/{EXPORT}/{MODEL_WEIGHTS}",
    "generator.safetensors",
)
"""Path of the weights in an export, in the folder of the phase, in a run, and in a bundle."""


def generator_file(folder: str | Path) -> Path:
    """Find the weights in an export, a phase's folder, a run or a bundle (`tiny` is the shipped bundle).

    UserError lists the files that were looked for.
    """
    folder = bundle_path(folder)
    if folder.is_file() and folder.suffix == ".safetensors":
        return folder
    if not folder.is_dir():
        raise UserError(
            f"--generator {folder}: no such folder; train one with `xdub train generator`, or give tiny"
        )
    for file in FILES:
        if (folder / file).is_file():
            return folder / file
    raise UserError(
        f"--generator {folder}: holds none of {', '.join(FILES)}; train one with `xdub train generator`"
    )


def load_generator(recipe: Recipe, folder: str | Path, codec: Codec, device: str | torch.device) -> Backbone:
    """Load the generator in eval mode and its training precision.

    Raise UserError if the weights do not fit the recipe.
    """
    model = load_trained(recipe, "generator", codec, generator_file(folder))
    precision = recipe.for_phase("generator").precision
    return backbone_on(model, precision, device, offload=recipe.pairs.offload == "blocks")
