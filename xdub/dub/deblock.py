"""Smoothing of the grid that a block codec leaves: the linear codec decodes each square of pixels by itself."""

from __future__ import annotations

import numpy as np

RAMP = (0.5, 0.3, 0.12)
"""Share of a step at a border that is taken off the first, second and third pixel on each side."""
TRUE_EDGE = 24.0
"""Grey levels from which on a step is more likely the picture's own."""


def deblock(frames: np.ndarray, block: int) -> np.ndarray:
    """float32 [F,H,W,3] in 0..255 with the steps at multiples of ``block`` px spread over their neighbours."""
    out = frames.astype(np.float32, copy=True)
    for axis in (1, 2):
        view = np.moveaxis(out, axis, 1)
        _smooth_rows(view, block)
    return np.clip(out, 0, 255)


def _smooth_rows(view: np.ndarray, block: int) -> None:
    """In place, between rows n - 1 and n of [F,N,M,3] for every n that is a multiple of the block."""
    after = np.arange(block, view.shape[1], block)
    before = after - 1
    slope = (view[:, before] - view[:, before - 1] + view[:, after + 1] - view[:, after]) / 2
    step = view[:, after] - view[:, before] - slope  # beyond what the surface does by itself
    step = step * np.exp(-((step / TRUE_EDGE) ** 2))
    for reach, share in enumerate(RAMP):
        view[:, before - reach] += share * step
        view[:, after + reach] -= share * step
