"""The networks behind the filters, as the recipe's perception section names them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xdub.config import PerceptionConfig
from xdub.pairs.filters import Embed, MouthReading, ReadMouth, compare_landmarks
from xdub.perception.mouth import ARCFACE_112

TEMPLATE_EYES = float(np.linalg.norm(ARCFACE_112[1] - ARCFACE_112[0]))
"""Distance of the eyes in the 112 px template, px."""
MOVED = 0.42
"""Median ratio of both readings over generated pairs of rendered heads."""


@dataclass(frozen=True)
class Judges:
    """Who looks at a pair."""

    embed: Embed
    read_mouth: ReadMouth


class TrackedMouths:
    """Lips by the face tracker, which looks at V and V' alike, so that its habits cancel (paper B.3)."""

    def __init__(self) -> None:
        from xdub.perception.faces import FaceTracker

        self._tracker = FaceTracker()

    def __call__(self, frames: np.ndarray, new: np.ndarray, landmarks: np.ndarray) -> MouthReading:
        return compare_landmarks(
            self._tracker.track(frames).landmarks68, self._tracker.track(new).landmarks68
        )


class ReadMouths:
    """Lips by the opening that a small network reads off the pixels: far cheaper, and blind to shapes but opening.

    A jaw that opens moves the lower lip, the corners little and the upper lip not at all: the 20 points' mean distance
    is `MOVED` of the change of the gap. That makes values comparable to those of landmarks.
    """

    def __init__(self) -> None:
        from xdub.perception.mouth_readout import MouthReadout

        self._readout = MouthReadout.shipped()

    def __call__(self, frames: np.ndarray, new: np.ndarray, landmarks: np.ndarray) -> MouthReading:
        apart = np.abs(self._readout.read(frames, landmarks) - self._readout.read(new, landmarks))
        known = np.isfinite(apart)
        distance = MOVED * TEMPLATE_EYES * float(apart[known].mean()) if known.any() else float("nan")
        return MouthReading(distance=distance, found=float(known.mean()))


def load_judges(perception: PerceptionConfig, device: str = "cpu") -> Judges:
    """The judges a recipe names. UserError if weights cannot be had."""
    from xdub.perception.identity.load import load_identity

    identity = load_identity(perception).to(device)
    mouths = ReadMouths() if perception.mouth == "readout" else TrackedMouths()
    return Judges(embed=identity.embed, read_mouth=mouths)
