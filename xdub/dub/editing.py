"""Choices of an editor's recipe that change how a window is sampled, besides the solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xdub.config import GuidanceConfig, Recipe


@dataclass(frozen=True, kw_only=True)
class Editing:
    """Choices of an editor; the defaults are those of the paper's editor, and the only ones of a generator."""

    guidance: GuidanceConfig | None = None
    """Weights of guidance with three branches. None: one branch."""
    border: Literal["none", "every_step", "last_step"] = "none"
    """Steps at which the outer ring of latents is copied from the source."""
    colour: Literal["none", "masked_rgb", "lab"] = "none"
    """Match of the generated crops' colours to their source, see `xdub.dub.colour`."""
    rounded: bool = False
    """True: the schedules of guidance and border follow the network's rounded time."""


def editing_of(recipe: Recipe) -> Editing:
    """Return the choices of a recipe's sections `dub` and `model`."""
    dub, model = recipe.dub, recipe.model
    return Editing(
        guidance=dub.guidance,
        border=dub.border,
        colour=dub.colour,
        rounded=model.round_timesteps,
    )
