"""Guidance of an editor with two weights that follow the noise level (schedules of X-Dub's and TBDub's releases).

The network is evaluated in three branches: without reference and speech, with the reference alone, and with both. Their
velocities are combined as

    v = v_none + w_reference(t) (v_reference - v_none) + w_audio(t) (v_both - v_reference)
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor

from xdub.config import GuidanceConfig

BRANCHES = 3
"""Evaluations of the network for one guided velocity: none, reference, both."""


def guidance_weights(config: GuidanceConfig, t: float) -> tuple[float, float]:
    """Return (w_reference, w_audio) at t in [0, 1].

    w_audio is ``audio * max(t ** audio_power, audio_floor)``. w_reference is ``reference`` times a level that changes
    along half a cosine between the edges.
    """
    low_start, low_end, high_start, high_end = config.reference_edges
    rises = (_half_cosine(t, low_start, low_end), _half_cosine(t, high_start, high_end))
    steps = (after - before for before, after in pairwise(config.reference_levels))
    level = config.reference_levels[0] + sum(step * rise for step, rise in zip(steps, rises, strict=True))
    return config.reference * level, config.audio * max(t**config.audio_power, config.audio_floor)


def guided_velocity(branches: tuple[Tensor, Tensor, Tensor], weights: tuple[float, float]) -> Tensor:
    """Combine the velocities (none, reference, both), each [B, C, f, h, w], with weights (reference, audio)."""
    none, reference, both = branches
    return none + weights[0] * (reference - none) + weights[1] * (both - reference)


def _half_cosine(t: float, start: float, end: float) -> float:
    """Return a value that rises from 0 at ``start`` to 1 at ``end``; equal edges are a step."""
    if t >= end:
        return 1.0
    return 0.0 if t <= start else (1 - math.cos(math.pi * (t - start) / (end - start))) / 2
