"""Checks of recipe values, attached to their fields: ``steps: Annotated[int, POSITIVE]``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from xdub.geometry import CodecGeometry


@dataclass(frozen=True)
class Check:
    """A condition on one value, and the words that follow ``section.key=value`` where it fails."""

    holds: Callable[[Any], bool]
    message: str


@dataclass(frozen=True)
class CausalFrames:
    """Mark of a number of frames that must fit the causal codec."""


ADDED = {"added": True}
"""Metadata of a field that earlier versions did not have: its default is no part of `Recipe.identity`."""
NEUTRAL = {"neutral": True}
"""Metadata of a field that changes no result: it is no part of `Recipe.identity`."""
POSITIVE = Check(lambda value: value > 0, "must be positive")
NOT_NEGATIVE = Check(lambda value: value >= 0, "must be zero or more")
SOLVER_STEPS = Check(lambda value: 0 < value <= 1000, "must be 1 to 1000")
SHARE = Check(lambda value: 0 <= value <= 1, "is not in [0, 1]")
DECAY = Check(lambda value: 0 <= value < 1, "is not in [0, 1)")
BAND = Check(lambda value: 0 <= value[0] <= value[1] <= 1, "is not an ordered pair in [0, 1]")
THREE_POSITIVE = Check(lambda value: min(value) > 0, "must be three positive numbers")
LEVELS = Check(lambda value: min(value) >= 0, "must be numbers of zero or more")
EDGES = Check(
    lambda value: all(low <= high for low, high in pairwise((0, *value, 1))), "must be ascending in [0, 1]"
)
DIFFERENT = Check(
    lambda value: 0 < len(set(value)) == len(value), "must be one or more names that differ from each other"
)
FRAMES = CausalFrames()


@cache
def _marked(section: Any, kind: type) -> tuple[tuple[str, Any], ...]:
    """Return (field, mark) of all marks of a kind in a section's annotations."""
    hints = get_type_hints(section, include_extras=True)
    return tuple(
        (field.name, mark)
        for field in fields(section)
        if get_origin(hints[field.name]) is Annotated
        for mark in get_args(hints[field.name])[1:]
        if isinstance(mark, kind)
    )


def failed_values(section: Any, path: str, where: str = "") -> Iterator[str]:
    """Yield a message ``path.key=value`` for every value that fails its field's check; None always passes.

    ``where`` follows the value, e.g. the phase whose settings are checked.
    """
    for name, check in _marked(type(section), Check):
        value = getattr(section, name)
        if value is not None and not check.holds(value):
            shown = list(value) if isinstance(value, tuple) else value
            yield f"{path}.{name}={shown}{where} {check.message}"


def failed_frames(section: Any, path: str, geometry: CodecGeometry) -> Iterator[str]:
    """Yield a message for every number of frames that the codec cannot divide."""
    for name, _ in _marked(type(section), CausalFrames):
        count = getattr(section, name)
        if not geometry.fits(count):
            lower = max(1, (count - 1) // geometry.time * geometry.time + 1)
            yield (
                f"{path}.{name}={count} does not fit the causal codec ({geometry.time}k + 1 frames); "
                f"use {lower} or {lower + geometry.time}"
            )
