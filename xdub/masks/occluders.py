"""The seam of occluders (paper B.3): objects in front of a face, which the generator must not repaint."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from xdub.masks.face_shape import FaceViews


class OccluderFinder(Protocol):
    """A search for objects in front of a face; its networks stay in memory between clips."""

    name: str

    def find(self, views: FaceViews, face: np.ndarray) -> np.ndarray:
        """Return bool [F, S, S]: the objects inside the face mask ``face`` bool [F, S, S]."""
        ...


class NoFinder:
    """A finder for footage without occluders."""

    name = "none"

    def find(self, views: FaceViews, face: np.ndarray) -> np.ndarray:
        """Return all False."""
        return np.zeros_like(face)
