"""Black bars around a picture, which are cut off, because a face crop at the edge would repeat the bar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

EVERY = 12
"""Frames between the frames that are measured."""
DARK = 28
"""Largest grey level of a bar; compression lifts black by up to about ten levels."""
LIT = 60
"""Least grey level that the brightest part of the picture reaches; a darker video has no measurable bars."""
QUANTILE = 0.98
"""Share of a row that must be dark, so that a small logo does not hide a bar."""
LEAST_BAR = 0.02
"""Smallest bar relative to the picture's side."""
MOST_CUT = 0.7
"""Largest share of the picture that is cut off; beyond it the video is dark and not letterboxed."""
COLUMNS = 256
"""Pixels of a row or column that are read, evenly spaced."""


@dataclass(frozen=True)
class Area:
    """The part of a picture within the bars: rows [top, bottom) and columns [left, right)."""

    top: int
    bottom: int
    left: int
    right: int
    share: float
    """Share of the whole picture that the bars take."""

    def cut(self, frame: np.ndarray) -> np.ndarray:
        """Return the area of a frame [H, W, 3]."""
        return frame[self.top : self.bottom, self.left : self.right]


class LetterboxWatch:
    """Observer of frames that finds the area that is never black; frames pass through unchanged."""

    def __init__(self) -> None:
        self._rows: np.ndarray | None = None
        self._columns: np.ndarray | None = None

    def watch(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield frames uint8 [H, W, 3] of one size and measure every twelfth one."""
        for n, frame in enumerate(frames):
            if n % EVERY == 0:
                self._measure(frame)
            yield frame

    def area(self) -> Area | None:
        """Return the area within the bars, None if there are no bars."""
        if self._rows is None or self._columns is None:
            return None
        height, width = len(self._rows), len(self._columns)
        if min(self._rows.max(), self._columns.max()) < LIT:
            return None
        top, bottom = _bounds(self._rows)
        left, right = _bounds(self._columns)
        share = 1 - (bottom - top) * (right - left) / (height * width)
        if share == 0 or share > MOST_CUT:
            return None
        return Area(top, bottom, left, right, share)

    def _measure(self, frame: np.ndarray) -> None:
        height, width = frame.shape[:2]
        across, down = max(1, width // COLUMNS), max(1, height // COLUMNS)
        rows = np.quantile(frame[:, ::across].max(axis=2), QUANTILE, axis=1, method="lower")
        columns = np.quantile(frame[::down].max(axis=2), QUANTILE, axis=0, method="lower")
        # A row is a bar only if it is dark in every frame.
        self._rows = rows if self._rows is None else np.maximum(self._rows, rows)
        self._columns = columns if self._columns is None else np.maximum(self._columns, columns)


def _bounds(levels: np.ndarray) -> tuple[int, int]:
    """Return [first, last) without the dark ends of levels [N]; an end below `LEAST_BAR` is no bar."""
    bright = np.flatnonzero(levels > DARK)
    first, last, length = int(bright[0]), int(bright[-1]) + 1, len(levels)
    least = max(2, round(LEAST_BAR * length))
    return (first if first >= least else 0), (last if length - last >= least else length)
