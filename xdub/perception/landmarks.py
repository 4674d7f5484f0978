"""Landmark layouts: MediaPipe's mesh of 478 points, and the 68 iBUG points that all other modules use.

Points are px of the picture, x to the right, y down; the corner of the first pixel is (0, 0).
"""

from __future__ import annotations

import numpy as np

MESH_TO_68 = np.array(
    [
        *(127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356),  # 0-16 jaw line
        *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),  # 17-26 brows
        *(168, 197, 5, 4),  # 27-30 bridge of the nose
        *(98, 97, 2, 326, 327),  # 31-35 base of the nose
        *(33, 160, 158, 133, 153, 144),  # 36-41 eye on the left of the picture
        *(362, 385, 387, 263, 373, 380),  # 42-47 eye on the right
        *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # 48-59 outer lips
        *(78, 82, 13, 312, 308, 317, 14, 87),  # 60-67 inner lips
    ]
)
"""Index of the mesh vertex for each of the 68 points."""
MOUTH = slice(48, 68)
"""Points of the outer and inner lips."""
EYE_CORNERS = (36, 39, 42, 45)
"""Corners of the eye on the left of the picture, then of the eye on the right."""
NOSE_BASE = 33
"""Middle of the base of the nose."""
EYE_TO_NOSE = 0.76
"""Distance from the eyes down to the base of the nose of an adult, in eye distances, in a face seen from the front."""

LANDMARK_BOX = (1.456, 0.148)
"""Side of a crop of `xdub.data.landmark_boxes`, and its centre's distance above that of `xdub.data.transforms`, both in
sides of the latter: means over rendered heads, whose deviations are 0.04 and 0.01."""


def mesh_to_68(mesh: np.ndarray) -> np.ndarray:
    """Convert a mesh [..., 478, D] to points [..., 68, 2] float32."""
    return np.ascontiguousarray(mesh[..., MESH_TO_68, :2], np.float32)


def eye_centres(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle of each eye's corners, left then right in the picture, [..., 2]; blinks do not move it."""
    left = (landmarks[..., 36, :] + landmarks[..., 39, :]) / 2
    right = (landmarks[..., 42, :] + landmarks[..., 45, :]) / 2
    return left, right


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Return eye centres, tip of the nose and corners of the mouth [..., 5, 2] for points [..., 68, 2]."""
    left, right = eye_centres(landmarks)
    return np.stack(
        [left, right, landmarks[..., 30, :], landmarks[..., 48, :], landmarks[..., 54, :]], axis=-2
    )


def eye_distance(landmarks: np.ndarray) -> np.ndarray:
    """Return the distance between the eye centres [...] in px."""
    left, right = eye_centres(landmarks)
    return np.linalg.norm(right - left, axis=-1)
