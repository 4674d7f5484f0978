"""The lower face of data sets that earlier versions prepared: a mean model at the pose of eyes, brows and nose."""

from __future__ import annotations

import numpy as np

from xdub.masks.face_shape import FaceViews
from xdub.perception.face_mesh import lower_face_masks


class LowerFace:
    """Masks of the lower face of a mean person with the jaw fixed open."""

    name = "lower"

    def masks(self, views: FaceViews) -> np.ndarray:
        """Return bool [F, S, S], from below the eyes to under the chin; see `FaceShape.masks`."""
        size = views.frames.shape[1]
        return lower_face_masks(views.landmarks, size, size)
