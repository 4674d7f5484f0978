"""config.json beside the weights of a Wan. What it states is binding, because shapes do not show every setting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xdub.errors import UserError
from xdub.files.weight_folder import WeightFolder

CONFIG = "config.json"
"""File of a layout's configuration."""
OWN_KEY = "xdub"
"""Key of config.json under which a whole `WanConfig` is written."""
CLASSES = ("WanModel", "WanTransformer3DModel")
"""Class names in configurations of this network, in the original layout and in diffusers'."""
MODEL_TYPES = ("t2v", "ti2v")
"""Types of the original layout that are this network."""
EPS = 1e-6
"""Number that all releases add to the variance in every norm."""


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the values of a JSON file; {} if there is no file. Raise UserError for a damaged one."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); download it again") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: is not the configuration of a network; download it again")
    return values


def config_of(weights: WeightFolder) -> tuple[Path, dict[str, Any]]:
    """Return path and values of the configuration beside weights; {} if there is none."""
    folder = weights.path if weights.path.is_dir() else weights.path.parent
    values = read_json_object(folder / CONFIG)
    # A single file may have the configuration of another network beside it.
    foreign = weights.path.is_file() and OWN_KEY not in values and not _is_wan_config(values)
    return folder / CONFIG, {} if foreign else values


def check_stated(
    weights: WeightFolder, *, num_heads: int, eps: float = EPS, cross_attn_norm: bool = True
) -> None:
    """Raise UserError for open weights `model.base` that state another setting than the recipe's network has.

    The defaults are the settings of all releases, and of every recipe.
    """
    _, values = config_of(weights)
    stated = values.get(OWN_KEY, values)
    for key, name, own in (
        ("num_heads", "num_heads", num_heads),
        ("num_attention_heads", "num_heads", num_heads),
        ("eps", "eps", eps),
        ("cross_attn_norm", "cross_attn_norm", cross_attn_norm),
    ):
        if key in stated and stated[key] != own:
            fix = (
                f"--set model.{name}={stated[key]}"
                if name == "num_heads"
                else "only releases with that value can be trained"
            )
            raise UserError(
                f"model.base={weights.path}: has {name}={stated[key]}, but the recipe's network has {own}; {fix}"
            )


def _is_wan_config(values: Mapping[str, Any]) -> bool:
    return (
        values.get("_class_name", CLASSES[0]) in CLASSES
        and values.get("model_type", MODEL_TYPES[0]) in MODEL_TYPES
    )
