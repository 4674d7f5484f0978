"""Smoothing of the grid that a block codec leaves: the linear codec decodes each square of pixels by itself."""

from __future__ import annotations

import numpy as np

RAMP = (0.5, 0.3, 0.12)
"""Share of a border's step that is subtracted from the first, second and third pixel on each side."""
TRUE_EDGE = 24.0
"""Step, in grey levels, from which it more likely belongs to the picture than to the grid."""


def deblock(frames: np.ndarray, block: int) -> np.ndarray:
    """Spread the steps at multiples of ``block`` px over their neighbours; frames and result [F,H,W,3] in 0..255."""
    out = frames.astype(np.float32, copy=True)
    for axis in (1, 2):
        view = np.moveaxis(out, axis, 1)
        _smooth_rows(view, block)
    return np.clip(out, 0, 255)


def _smooth_rows(view: np.ndarray, block: int) -> None:
    """Smooth in place between rows n - 1 and n of [F,N,M,3], for every n that is a multiple of the block."""
    after = np.arange(block, view.shape[1], block)
    before = after - 1
    slope = (view[:, before] - view[:, before - 1] + view[:, after + 1] - view[:, after]) / 2
    # Only the part of the step beyond the slope of the surface is an error.
    step = view[:, after] - view[:, before] - slope
    step = step * np.exp(-((step / TRUE_EDGE) ** 2))
    for reach, share in enumerate(RAMP):
        view[:, before - reach] += share * step
        view[:, after + reach] -= share * step
