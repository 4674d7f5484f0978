"""The networks behind the filters, as the recipe's perception section names them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from xdub.config import PerceptionConfig
from xdub.pairs.filters import Embed, MouthReading, ReadMouth, compare_landmarks
from xdub.perception.mouth import ARCFACE_112
from xdub.precision import frozen

TEMPLATE_EYES = float(np.linalg.norm(ARCFACE_112[1] - ARCFACE_112[0]))
"""Distance between the eyes in the 112 px template, px."""
POINT_SHIFT = 0.42
"""Distance of the mouth's points per change of its opening: median over generated pairs of rendered heads."""


@dataclass(frozen=True)
class Judges:
    """Networks that measure a pair."""

    embed: Embed
    read_mouth: ReadMouth


class TrackedMouths:
    """Comparison of lips by the face tracker, run on both V and V' so that its systematic errors cancel (paper B.3)."""

    def __init__(self) -> None:
        from xdub.perception.faces import FaceTracker

        self._tracker = FaceTracker()

    def __call__(self, frames: np.ndarray, new: np.ndarray, landmarks: np.ndarray) -> MouthReading:
        """Compare the lips of V and V', see `xdub.pairs.filters.ReadMouth`."""
        return compare_landmarks(
            self._tracker.track(frames).landmarks68, self._tracker.track(new).landmarks68
        )


class ReadMouths:
    """Comparison of lips by the mouth opening that a small network reads from pixels.

    The network is far cheaper than the tracker, but it measures the opening only. An opening jaw moves the lower lip
    fully, the corners little and the upper lip not at all, so the mean distance of the 20 points is `POINT_SHIFT`
    times the change of the gap. That factor makes the values comparable to those of landmarks.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        from xdub.perception.mouth_readout import MouthReadout

        self._readout = frozen(MouthReadout.shipped(), device)

    def __call__(self, frames: np.ndarray, new: np.ndarray, landmarks: np.ndarray) -> MouthReading:
        """Compare the lips of V and V', see `xdub.pairs.filters.ReadMouth`."""
        change = np.abs(self._readout.read(frames, landmarks) - self._readout.read(new, landmarks))
        valid = np.isfinite(change)
        distance = POINT_SHIFT * TEMPLATE_EYES * float(change[valid].mean()) if valid.any() else float("nan")
        return MouthReading(distance=distance, readable=float(valid.mean()))


def load_judges(perception: PerceptionConfig, device: str | torch.device = "cpu") -> Judges:
    """Load the judges that a recipe names onto a device; the face tracker always runs on the CPU.

    Raise UserError if their weights are missing and cannot be downloaded.
    """
    from xdub.perception.identity.load import load_identity

    identity = frozen(load_identity(perception), device)
    mouths = ReadMouths(device) if perception.mouth == "readout" else TrackedMouths()
    return Judges(embed=identity.embed, read_mouth=mouths)
