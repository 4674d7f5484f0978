"""The same new light on V and V' (paper 3.1.2): the editor sees lighting that moves, and learns to leave it alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_UNEVEN = 0.22
"""Largest difference of mean light between halves of the picture, relative to the mean, of a uniformly lit clip."""
MAX_FLICKER = 0.05
"""Largest change over time of a frame's mean light, relative to the mean."""


@dataclass(frozen=True)
class Light:
    """One light: linear gain, gamma, and a gradient that turns from one direction to another during the clip."""

    gain: float
    gamma: float
    strength: float
    """Of the gradient: relative change of light from the centre to the border."""
    angle: tuple[float, float]
    """Its direction at the first and the last frame, radians."""
    tint: tuple[float, float, float]
    """Gain of red, green, blue."""


def is_uniformly_lit(frames: np.ndarray, ignore: np.ndarray | None = None) -> bool:
    """Whether light falls evenly on the picture uint8 [F,H,W,3] and does not change (only then may it be relit).

    Args:
        ignore: bool [F,H,W], pixels that say nothing about the light, e.g. occluders.
    """
    luma = frames[:: max(1, len(frames) // 8)].astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
    if ignore is not None:
        luma = np.where(ignore[:: max(1, len(frames) // 8)], np.nan, luma)
    mean = float(np.nanmean(luma))
    if mean < 10 or mean > 245:
        return False
    flicker = float(np.nanstd(np.nanmean(luma, axis=(1, 2)))) / mean
    # The face is the middle: its two sides are of one material, unlike hair and background around it.
    height, width = luma.shape[1:]
    middle = luma[:, height // 4 : -height // 4, width // 4 : -width // 4]
    sides = [np.nanmean(half) for half in np.array_split(middle, 2, axis=2)]
    return flicker <= MAX_FLICKER and abs(sides[0] - sides[1]) / mean <= MAX_UNEVEN


def draw_light(rng: np.random.Generator) -> Light:
    """A light decided by the generator: moderate, so that neither picture clips."""
    start = rng.uniform(0, 2 * np.pi)
    return Light(
        gain=float(rng.uniform(0.75, 1.2)),
        gamma=float(rng.uniform(0.85, 1.2)),
        strength=float(rng.uniform(0.1, 0.4)),
        angle=(float(start), float(start + rng.uniform(-1.2, 1.2))),
        tint=tuple(float(value) for value in rng.uniform(0.93, 1.07, 3)),
    )


def relight(frames: np.ndarray, light: Light) -> np.ndarray:
    """The pictures [F,H,W,3] uint8 in that light.

    A pixel's new value depends on its own value and place alone: where V and V' agree, so do their relit versions.
    """
    count, height, width, _ = frames.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    angles = np.linspace(*light.angle, count)
    # gamma as a table: at most 256 different values
    table = (np.linspace(0, 1, 256) ** light.gamma * 255).astype(np.float32)
    gain = np.float32(light.gain) * np.float32(light.tint)
    out = np.empty_like(frames)
    for n, (frame, angle) in enumerate(zip(frames, angles, strict=True)):
        field = (1 + light.strength * (np.cos(angle) * x + np.sin(angle) * y)).astype(np.float32)
        out[n] = np.clip(np.rint(table[frame] * gain * field[..., None]), 0, 255).astype(np.uint8)
    return out
