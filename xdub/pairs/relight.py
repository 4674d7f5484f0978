"""The same new light on V and V' (paper 3.1.2), so that the editor sees moving light and learns to preserve it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xdub.pairs.filters import LUMA

MAX_UNEVEN = 0.22
"""Largest difference of mean light between halves of the picture, relative to the mean, of a uniformly lit clip."""
MAX_FLICKER = 0.05
"""Largest change over time of a frame's mean light, relative to the mean."""


@dataclass(frozen=True)
class Light:
    """A light: linear gain, gamma, tint, and a gradient whose direction turns during the clip."""

    gain: float
    gamma: float
    strength: float
    """Relative change of light along the gradient, from the centre to the border."""
    angle: tuple[float, float]
    """Direction of the gradient at the first and the last frame, radians."""
    tint: tuple[float, float, float]
    """Gain of red, green, blue."""


def is_uniformly_lit(frames: np.ndarray, ignore: np.ndarray | None = None) -> bool:
    """Return True if the light on frames uint8 [F,H,W,3] is even and constant; only such clips are relit.

    Args:
        ignore: bool [F,H,W], pixels that are not measured, e.g. occluders.
    """
    luma = frames[:: max(1, len(frames) // 8)].astype(np.float32) @ LUMA
    if ignore is not None:
        luma = np.where(ignore[:: max(1, len(frames) // 8)], np.nan, luma)
    mean = float(np.nanmean(luma))
    if mean < 10 or mean > 245:
        return False
    flicker = float(np.nanstd(np.nanmean(luma, axis=(1, 2)))) / mean
    # The face is in the middle. Its two sides have the same material, unlike hair and background around it.
    height, width = luma.shape[1:]
    middle = luma[:, height // 4 : -height // 4, width // 4 : -width // 4]
    sides = [np.nanmean(half) for half in np.array_split(middle, 2, axis=2)]
    return flicker <= MAX_FLICKER and abs(sides[0] - sides[1]) / mean <= MAX_UNEVEN


def draw_light(rng: np.random.Generator) -> Light:
    """Draw a light, moderate enough that pictures do not clip."""
    start = rng.uniform(0, 2 * np.pi)
    gain, gamma = rng.uniform(0.75, 1.2), rng.uniform(0.85, 1.2)
    strength, turn = rng.uniform(0.1, 0.4), rng.uniform(-1.2, 1.2)
    tint = rng.uniform(0.93, 1.07, 3)
    return Light(
        gain=float(gain),
        gamma=float(gamma),
        strength=float(strength),
        angle=(float(start), float(start + turn)),
        tint=(float(tint[0]), float(tint[1]), float(tint[2])),
    )


def relight(frames: np.ndarray, light: Light) -> np.ndarray:
    """Apply a light to frames [F,H,W,3] uint8.

    A pixel's new value depends on its own value and position only, so relit V and V' are equal where V and V' are.
    """
    count, height, width, _ = frames.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    angles = np.linspace(*light.angle, count)
    # Gamma as a table, because there are at most 256 different values.
    table = (np.linspace(0, 1, 256) ** light.gamma * 255).astype(np.float32)
    gain = np.float32(light.gain) * np.array(light.tint, np.float32)
    out = np.empty_like(frames)
    for n, (frame, angle) in enumerate(zip(frames, angles, strict=True)):
        field = (1 + light.strength * (np.cos(angle) * x + np.sin(angle) * y)).astype(np.float32)
        out[n] = np.clip(np.rint(table[frame] * gain * field[..., None]), 0, 255).astype(np.uint8)
    return out
