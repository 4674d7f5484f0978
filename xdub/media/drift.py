"""Sound whose time stamps run faster or slower than its samples: players follow the time stamps, and so does this."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xdub.media.stored_sound import StoredSound

TOLERANCE = 0.004
"""Drift in seconds that is left alone: rounded time stamps, and the jitter of interleaving."""
KNOT, WINDOW = 1.0, 4.0
"""Seconds between the points of the drift curve, and seconds of sound that each point is fitted to."""
TAPS, PHASES = 32, 512
"""Length of the interpolating filter in samples, and its positions between two samples."""
BLOCK = 1 << 15
"""Number of samples that are interpolated at once."""


def follow(sound: StoredSound, rate: int, counted: np.ndarray, stamped: np.ndarray) -> Iterator[np.ndarray]:
    """Yield sound [N] in blocks [n], stretched so that it follows its time stamps; unchanged without a drift.

    Args:
        rate: sample rate in Hz.
        counted: float64 [M], seconds of sound before each of M blocks, increasing from 0.
        stamped: float64 [M], time stamps of the blocks in seconds, relative to the first.
    """
    curve = _curve(counted, stamped - counted)
    if curve is None:
        yield from sound.blocks()
        return
    knots, drift = curve
    times = np.maximum.accumulate(knots + drift)
    last = sound.size / rate
    length = round((last + np.interp(last, knots, drift)) * rate)
    for begin in range(0, length, BLOCK):
        moments = np.arange(begin, min(begin + BLOCK, length)) / rate
        positions = np.interp(moments, times, knots)
        yield _interpolate(sound, positions * rate)


def _curve(counted: np.ndarray, drift: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return knots [K] in seconds and the drift at each, without jitter; None if it stays below the tolerance."""
    if counted.size < 3 or np.abs(drift - drift[0]).max() < TOLERANCE:
        return None
    end = counted[-1] + (counted[-1] - counted[-2])
    knots = np.linspace(0.0, end, max(2, round(end / KNOT) + 1))
    smooth = np.empty_like(knots)
    for n, knot in enumerate(knots):
        begin, stop = np.searchsorted(counted, (knot - WINDOW / 2, knot + WINDOW / 2))
        near = slice(max(0, min(begin, counted.size - 3)), max(stop, 3))
        smooth[n] = _line(counted[near] - knot, drift[near])
    return None if np.abs(smooth - smooth[0]).max() < TOLERANCE else (knots, smooth)


def _line(x: np.ndarray, y: np.ndarray) -> float:
    """Return the value at x = 0 of the straight line that fits best."""
    centred = x - x.mean()
    slope = (centred * y).sum() / max((centred**2).sum(), 1e-12)
    return float(y.mean() - slope * x.mean())


def _interpolate(sound: StoredSound, positions: np.ndarray) -> np.ndarray:
    """Return sound [N] at fractional positions [n], by a windowed sinc; there is silence beyond both ends."""
    whole = np.floor(positions).astype(np.int64)
    phase = np.round((positions - whole) * PHASES).astype(np.int64)
    first = whole[0] - TAPS // 2 + 1
    near = np.zeros(whole[-1] - whole[0] + TAPS + 1, np.float32)
    begin, end = max(first, 0), min(first + near.size, sound.size)
    if begin < end:
        near[begin - first : end - first] = sound[begin:end]
    windows = np.lib.stride_tricks.sliding_window_view(near, TAPS)[whole - whole[0]]
    return np.einsum("nt,nt->n", windows, _filters()[phase], dtype=np.float32)


def _filters() -> np.ndarray:
    """Return the filter at each of the positions between two samples, float32 [PHASES + 1, TAPS]."""
    offsets = np.arange(TAPS) - TAPS // 2 + 1 - np.arange(PHASES + 1)[:, None] / PHASES
    taps = np.sinc(offsets) * np.i0(8.0 * np.sqrt(np.maximum(0, 1 - (offsets / (TAPS / 2)) ** 2)))
    return (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)
