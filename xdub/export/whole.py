"""Whole networks: adapters merged into their weights, in the layout of the base's release or in diffusers'."""

from __future__ import annotations

from pathlib import Path

import torch

from xdub.config import expert_of
from xdub.errors import UserError
from xdub.export.source import Part, Source
from xdub.files.weight_folder import WeightFolder
from xdub.model.backbone import Backbone
from xdub.model.backbone_files import save_backbone
from xdub.model.build import load_network
from xdub.model.lora import load_expert, merge_adapter


def merged_backbone(source: Source, phase: str) -> Backbone:
    """Return the network of a phase without adapters, in fp32: they are a part of its weights.

    An expert is merged into the editor. Raise UserError if the source lacks the weights.
    """
    part = source.part(phase)
    if expert_of(phase) is None:
        return _network(part)
    model = _network(source.part("editor"))
    load_expert(model, phase, part.file, part.recipe.lora)
    merge_adapter(model, phase)
    return model


def write_whole(
    model: Backbone, folder: Path, kind: str, *, diffusers: bool, dtype: torch.dtype
) -> list[str]:
    """Write a network as a folder that is loaded without this project's training code; return its files.

    Args:
        kind: ``model.kind`` of the recipe. A ``wan`` keeps the names of its release, or gets diffusers'.

    Raise UserError for diffusers' layout of a network that diffusers does not have.
    """
    if diffusers and kind != "wan":
        raise UserError("--form diffusers: diffusers has no class for the paper's network; use --form merged")
    layout = "diffusers" if diffusers else "original" if kind == "wan" else "ours"
    save_backbone(model.to(dtype), folder, layout)
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def _network(part: Part) -> Backbone:
    model = load_network(part.recipe, part.phase, WeightFolder(part.file, (part.file,)))
    return model.eval().requires_grad_(False)
