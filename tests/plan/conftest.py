"""Models without weights: the meta device knows every shape and costs nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from xdub.config import Recipe
from xdub.model.build import build_dit
from xdub.model.dit import VideoDiT
from xdub.model.lora import add_expert
from xdub.plan.shapes import shapes
from xdub.train.phases import get_phase


def meta_model(recipe: Recipe, phase: str) -> VideoDiT:
    """The network of a phase as `xdub.train.networks` builds it, without numbers."""
    with torch.device("meta"):
        model = build_dit(recipe, phase)
        if (expert := get_phase(phase).EXPERT) is not None:
            add_expert(model, expert, recipe.lora)
    return model.train()


def inputs(recipe: Recipe, phase: str, *, batch: int = 1, device: str = "meta") -> dict[str, Any]:
    """Arguments of VideoDiT with the shapes that the data stream delivers."""
    s, channels = shapes(recipe, phase), recipe.codec.channels
    z_t = torch.zeros(batch, channels, s.target, s.side, s.side, device=device)
    arguments = dict(
        z_t=z_t,
        z_ref=torch.zeros(batch, channels, s.reference, s.side, s.side, device=device),
        t=torch.full((batch,), 0.5, device=device),
        audio=torch.zeros(batch, s.audio, recipe.audio.dim, device=device),
        starts=torch.zeros(s.target, dtype=torch.int64, device=device),
    )
    return arguments | (dict(z_mask=z_t) if phase == "generator" else {})


@pytest.fixture(scope="session")
def on_meta():
    """Functions (recipe, phase) -> model and (recipe, phase, batch=, device=) -> its inputs."""
    return meta_model, inputs
