"""The interface of all checks of a clip: a measurement of its pictures or sound, compared with a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from xdub.geometry import SOUND_MARGIN


@dataclass(frozen=True, kw_only=True, eq=False)
class Footage:
    """The parts of a clip of F frames that checks read."""

    frames: np.ndarray
    """[F, S, S, 3] uint8, the face crop"""
    landmarks: np.ndarray
    """[F, 68, 2] float32, crop px; rows without a face are nan"""
    sound: np.ndarray
    """[640 (F + 50)] float32, the sound with a second before and after it"""

    @property
    def face_frames(self) -> np.ndarray:
        """Indices of the frames with a face."""
        return np.flatnonzero(np.isfinite(self.landmarks).all(axis=(1, 2)))

    @property
    def length(self) -> int:
        """Number of frames F."""
        return len(self.frames)

    def sampled(self, every: int) -> np.ndarray:
        """Return every n-th of the frames with a face."""
        return self.face_frames[::every]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A value of a clip, its bounds, and the reason in words if it lies outside of them."""

    name: str
    value: float
    """nan for a clip without a face."""
    least: float | None = None
    """Smallest value that passes."""
    most: float | None = None
    """Largest value that passes."""
    message: str = ""

    @property
    def passed(self) -> bool:
        """True if the value lies within its bounds; nan passes without bounds only."""
        return (self.least is None or self.value >= self.least) and (
            self.most is None or self.value <= self.most
        )

    @property
    def threshold(self) -> float | None:
        """The bound that the value violates, else the only bound."""
        if self.least is not None and (self.most is None or not self.value >= self.least):
            return self.least
        return self.most

    def scores(self) -> dict[str, float]:
        """Return the value under the check's name, and its bounds under `NAME.least` and `NAME.most`."""
        bounds = {"": self.value, ".least": self.least, ".most": self.most}
        return {self.name + suffix: float(value) for suffix, value in bounds.items() if value is not None}


class Check(Protocol):
    """A check of a clip. Its networks, if any, are loaded when it is built."""

    unit: str
    """Unit of the value, for charts and reports."""

    def measure(self, footage: Footage) -> Sequence[Measurement]:
        """Measure a clip; a check may have several values."""
        ...


def middle(per_frame: np.ndarray) -> np.ndarray:
    """Cut the second before and after a clip off values per frame [F + 50]."""
    return per_frame[SOUND_MARGIN : len(per_frame) - SOUND_MARGIN]
