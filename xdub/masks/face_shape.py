"""The seam of face masks (paper B.2): a 3D face at each frame's pose with its jaw fixed open, projected.

A mask that follows the lips would leak the old speech into the generator, so an implementation keeps the pose, shape
and expression of each frame and replaces the jaw alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

FIXED_JAW = 0.4
"""Opening of the jaw in all masks, radians (paper B.2)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceViews:
    """One face in F frames of one shot, as face crops of S px; rows without a face are nan."""

    frames: np.ndarray
    """[F, S, S, 3] uint8 RGB"""
    landmarks: np.ndarray
    """[F, 68, 2] float32, iBUG-68 in px of the crops"""
    mesh: np.ndarray
    """[F, 478, 3] float32, MediaPipe's mesh in px of the crops; z in px, smaller is nearer"""
    person: np.ndarray
    """[n, 478, 3] float32, meshes of the same person from the whole shot, in any px"""


class FaceShape(Protocol):
    """A 3D face that draws masks."""

    name: str

    def masks(self, views: FaceViews) -> np.ndarray:
        """Return bool [F, S, S], the whole face with the jaw at `FIXED_JAW`; empty in frames without a face."""
        ...
