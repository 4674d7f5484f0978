"""Face masks from MediaPipe's mesh: the person's own shape, jaw open at a fixed angle, at the pose of each frame."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from xdub.masks.face_model import STEADY_SIZE, head_poses, person_shape, steady
from xdub.masks.face_shape import FIXED_JAW, FaceViews
from xdub.perception.face_geometry import VERTICES, canonical_face
from xdub.perception.face_mesh import hull_masks

HINGE = (0.0, 1.5)
"""Position (y, z) in cm of the jaw's axis in the canonical face, between the ears."""
JAW_FROM, JAW_TO = 3.6, 5.4
"""Heights (y) in cm of the canonical face, upper and lower lip, between which vertices begin to move with the jaw."""
PROTRUDING = (
    0,
    2,
    13,
    14,
    17,
    18,
    37,
    39,
    40,
    61,
    84,
    91,
    146,
    181,
    185,
    267,
    269,
    270,
    291,
    314,
    321,
    375,
    405,
    409,
)
"""Vertices of the lips and around them that pucker."""
PROTRUSION = 2.0
"""Distance in cm by which the outline lies in front of the lips, for a pucker and errors of the turn in profile."""
GROW = 1.08
"""Enlargement of the outline about its middle, because the mesh ends inside of the cheeks and the forehead."""
LIPS, EYES = (13, 14), (33, 263)
"""Vertices in the middle of the inner lips, and at the outer corners of the eyes."""
LEAST_GAP = 0.005
"""Motion of the lips in eye distances below which the dependence of an area on their gap is not measurable."""
CORRECTIONS, MOST_CORRECTION = 2, 0.1
"""Rounds of the correction of the areas, and its largest change of the log area in a round."""
STEADY_EXPRESSION = 12.0
"""Sigma in frames of the Gaussian over the expression: smiles stay, and what moves with syllables does not."""


class MeshShape:
    """Masks of the whole face from MediaPipe's mesh.

    The outline is the convex hull of the projected mesh, so lips that protrude in profile lie inside.
    """

    name = "mesh"

    def masks(self, views: FaceViews) -> np.ndarray:
        """Return bool [F, S, S]; see `FaceShape.masks`."""
        size = views.frames.shape[1]
        points = outline(views.mesh, views.person)
        masks = hull_masks(points, size, size)
        gap = lip_gap(views.mesh)
        # A part of a mask may lie outside the crop, so its area is not proportional to the square of its size.
        for _ in range(CORRECTIONS):
            points = _scaled(points, np.exp(area_correction(masks.sum(axis=(1, 2)), gap) / 2))
            masks = hull_masks(points, size, size)
        return masks


def outline(meshes: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Return projected points [F, N, 2] px of the closed face, the face with its jaw fixed, and protruding lips.

    ``meshes`` [F, 478, 3] are in px, and ``person`` [n, 478, 3] are meshes of the same person in any px. Rows without a
    face are nan.
    """
    meshes = np.asarray(meshes, np.float64)[:, :VERTICES]
    if not np.isfinite(meshes).all(axis=(1, 2)).any():
        return np.full((len(meshes), 2 * VERTICES, 2), np.nan)
    shape = person_shape(person)
    poses = head_poses(meshes, shape)
    weight = jaw_weights()
    # The jaw and the lips have no expression of their own: all masks have the same opening.
    expression = steady(poses.invert(meshes) - shape, STEADY_EXPRESSION) * (1 - weight)[:, None]
    face = shape + expression
    opened = open_jaw(face, weight)
    # In profile an open jaw lies behind the closed one, and lips may protrude. The outline covers all of them, and none
    # depends on the frame.
    lips = np.concatenate([face[:, PROTRUDING], opened[:, PROTRUDING]], axis=1) + (0.0, 0.0, -PROTRUSION)
    points = poses.apply(np.concatenate([face, opened, lips], axis=1))[..., :2]
    return _scaled(points, np.full(len(points), GROW))


def lip_gap(meshes: np.ndarray) -> np.ndarray:
    """Return the gap [F] between the inner lips of meshes [F, 478, 3], in distances between the eyes' outer corners."""
    points = np.asarray(meshes, np.float64)
    eyes = np.linalg.norm(points[:, EYES[0]] - points[:, EYES[1]], axis=1)
    return np.linalg.norm(points[:, LIPS[0]] - points[:, LIPS[1]], axis=1) / eyes


def area_correction(area: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Return the change [F] of the log area that makes areas [F] uncorrelated with the lips' gap [F].

    The tracker enlarges a face a little when its mouth opens, which would leak the old speech. The change
    is smooth and never negative, so that no mask loses a part of the face, and at most `MOST_CORRECTION`.
    """
    valid = np.isfinite(gap) & (area > 0)
    change = np.zeros(len(area))
    if valid.sum() < 3:
        return change
    smooth = steady(np.where(valid, gap, np.nan), STEADY_SIZE)[valid]
    raw, log_area = gap[valid] - gap[valid].mean(), np.log(area[valid])
    smooth = smooth - smooth.mean()
    slope = (log_area @ raw) / max(smooth @ raw, len(raw) * LEAST_GAP**2)
    own = -slope * smooth
    change[valid] = np.minimum(own - own.min(), MOST_CORRECTION)
    return change


def _scaled(points: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Return points [F, N, 2] enlarged by a factor [F] about the middle of each frame's points."""
    middle = (points.min(axis=1, keepdims=True) + points.max(axis=1, keepdims=True)) / 2
    return (points - middle) * factor[:, None, None] + middle


def open_jaw(points: np.ndarray, weight: np.ndarray, angle: float = FIXED_JAW) -> np.ndarray:
    """Turn points [..., 468, 3] in cm by ``weight`` [468] times ``angle`` radians about the jaw's axis."""
    y, z = points[..., 1] - HINGE[0], points[..., 2] - HINGE[1]
    cos, sin = np.cos(weight * angle), np.sin(weight * angle)
    moved = points.copy()
    moved[..., 1] = cos * y - sin * z + HINGE[0]
    moved[..., 2] = sin * y + cos * z + HINGE[1]
    return moved


@lru_cache(maxsize=1)
def jaw_weights() -> np.ndarray:
    """Return [468] float64: the share of the jaw's turn that each vertex follows, 0 above and 1 below the mouth."""
    height = canonical_face().vertices[:, 1]
    share = np.clip((height - JAW_FROM) / (JAW_TO - JAW_FROM), 0, 1)
    return share * share * (3 - 2 * share)
