"""Match of a generated crop's colours to its source, frame by frame, as X-Dub's and TBDub's releases do.

An editor shifts colours slightly. A window begins with frames of the previous one, so the shift would grow from window
to window. Frames are float32 [F, S, S, 3] in 0..255.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

ALIKE = 0.07
"""Largest mean difference of a pixel's channels, as a share of the range, at which generated and source look alike."""
LEAST_VARIANCE = 1e-7
"""Value added to both variances, in units of the squared range, before their ratio."""


def match_colours(
    generated: np.ndarray, source: np.ndarray, kind: Literal["none", "masked_rgb", "lab"]
) -> np.ndarray:
    """Return generated frames whose channels have the source's means and deviations.

    Args:
        generated: float32 [F, S, S, 3].
        source: uint8 [F, S, S, 3].
        kind: ``masked_rgb`` compares red, green and blue over the pixels where both look alike, ``lab`` compares Lab
            over whole frames, ``none`` changes nothing.
    """
    if kind == "none":
        return generated
    match = _match_masked if kind == "masked_rgb" else _match_lab
    frames = [
        match(np.clip(one, 0, 255) / 255, other.astype(np.float32) / 255)
        for one, other in zip(generated, source, strict=True)
    ]
    return (255 * np.clip(np.stack(frames), 0, 1)).astype(np.float32)


def _match_masked(generated: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Shift and scale each channel of the whole frame by the pixels that look alike; without such pixels, keep it."""
    alike = np.abs(generated - source).mean(-1) < ALIKE
    # The deviation of a single pixel is not defined.
    if alike.sum() < 2:
        return generated
    own, target = generated[alike].astype(np.float64), source[alike].astype(np.float64)
    ratio = np.sqrt((target.var(0, ddof=1) + LEAST_VARIANCE) / (own.var(0, ddof=1) + LEAST_VARIANCE))
    return (generated - own.mean(0)) * ratio + target.mean(0)


def _match_lab(generated: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Shift and scale each channel of Lab over the whole frame."""
    import cv2

    own, target = (
        cv2.cvtColor(frame.astype(np.float32), cv2.COLOR_RGB2Lab).astype(np.float64)
        for frame in (generated, source)
    )
    own_spread, target_spread = own.std((0, 1)), target.std((0, 1))
    # A flat channel has no deviation to scale.
    ratio = np.divide(target_spread, own_spread, out=np.zeros(3), where=own_spread > 0)
    matched = (own - own.mean((0, 1))) * ratio + target.mean((0, 1))
    return cv2.cvtColor(matched.astype(np.float32), cv2.COLOR_Lab2RGB)
