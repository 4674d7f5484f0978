"""Pose and shape of one person's face from MediaPipe's meshes.

Speech must not move the pose, so only vertices of the upper face determine it. The person's shape is the mean of the
aligned meshes with the mouth nearly closed, so it is the same for all frames of a shot.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from xdub.perception.face_geometry import VERTICES, canonical_face

BROWS_AND_LIDS = (
    *(7, 22, 23, 24, 25, 26, 27, 28, 29, 30, 46, 52, 53, 55, 56, 63, 65, 66, 70, 105, 107, 110, 112, 144),
    *(145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 190, 221, 222, 223, 224, 225, 230, 231, 232),
    *(243, 246, 247, 249, 252, 253, 254, 255, 256, 257, 258, 259, 260, 276, 282, 283, 285, 286, 293, 295),
    *(296, 300, 334, 336, 339, 341, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 414, 441),
    *(442, 443, 444, 445, 450, 451, 452, 463, 466, 467),
)
"""Vertices that blinks and raised brows move."""
STILL_BELOW = 0.5
"""Height in cm of the canonical face (y down, the eyes' height is -2.6) above which speech moves no vertex."""
QUIET = 0.25
"""Share of a shot's meshes, those with the smallest distance from nose to chin, that show the mouth nearly closed."""
NOSE, CHIN = 2, 152
"""Vertices of the base of the nose and of the chin."""
ROUNDS = 3
"""Rounds of alignment to the mean shape; the shape moves by less than 0.01 cm in the third."""
STEADY_SIZE, STEADY_TURN, STEADY_SHIFT = 4.0, 3.0, 1.0
"""Sigmas in frames of the Gaussians over size, turn and position.

Syllables last 4 to 6 frames. Size and turn change the mask's area and are smoothed more than the position, which does
not change the area.
"""


@dataclass(frozen=True, eq=False)
class Poses:
    """Similarity maps from a person's shape (cm) to the px of F frames: ``point = scale * turn @ vertex + shift``."""

    scale: np.ndarray
    """Factor [F] from cm to px."""
    turn: np.ndarray
    """[F, 3, 3]"""
    shift: np.ndarray
    """[F, 3]"""

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Map points [N, 3] or [F, N, 3] in cm to [F, N, 3] px."""
        turned = points @ np.swapaxes(self.turn, 1, 2)
        return self.scale[:, None, None] * turned + self.shift[:, None]

    def invert(self, points: np.ndarray) -> np.ndarray:
        """Map points [F, N, 3] px to cm."""
        return (points - self.shift[:, None]) / self.scale[:, None, None] @ self.turn


@lru_cache(maxsize=1)
def still_vertices() -> np.ndarray:
    """Return the numbers of the vertices that neither speech, blinks nor brows move."""
    above = canonical_face().vertices[:, 1] < STILL_BELOW
    above[list(BROWS_AND_LIDS)] = False
    return np.flatnonzero(above)


def person_shape(meshes: np.ndarray) -> np.ndarray:
    """Return the shape [468, 3] in cm of the person of meshes [n, 478, 3] px, with the mouth nearly closed.

    Rows without a face are nan and are ignored. The size is that of the canonical face. Raise ValueError if no row has
    a face.
    """
    meshes = np.asarray(meshes, np.float64)[:, :VERTICES]
    meshes = meshes[np.isfinite(meshes).all(axis=(1, 2))]
    if not len(meshes):
        raise ValueError("no mesh has a face")
    shape, still = canonical_face().vertices, still_vertices()
    for _ in range(ROUNDS):
        aligned = align(meshes[:, still], shape[still]).invert(meshes)
        mean = aligned.mean(axis=0)
        back = align(mean[None, still], canonical_face().vertices[still])
        shape = back.invert(mean[None])[0]
    aligned = align(meshes[:, still], shape[still]).invert(meshes)
    length = np.linalg.norm(aligned[:, CHIN] - aligned[:, NOSE], axis=1)
    count = max(1, round(QUIET * len(aligned)))
    quiet = aligned[np.argsort(length, kind="stable")[:count]]
    # The upper face has the mean of all frames, which is more exact than the mean of a few.
    shape[canonical_face().vertices[:, 1] >= STILL_BELOW] = quiet.mean(axis=0)[
        canonical_face().vertices[:, 1] >= STILL_BELOW
    ]
    return shape


def head_poses(meshes: np.ndarray, shape: np.ndarray) -> Poses:
    """Return the smoothed poses of meshes [F, 478, 3] px of a person; nan for rows without a face."""
    still = still_vertices()
    points = np.asarray(meshes, np.float64)[:, still]
    valid = np.isfinite(points).all(axis=(1, 2))
    scale, turn, shift = np.full(len(points), np.nan), np.full((len(points), 3, 3), np.nan), np.nan
    shift = np.full((len(points), 3), np.nan)
    if not valid.any():
        return Poses(scale, turn, shift)
    raw = align(points[valid], shape[still])
    scale[valid], turn[valid], shift[valid] = raw.scale, raw.turn, raw.shift
    # The shift of the middle of the still vertices is independent of the turn's jitter.
    middle = shape[still].mean(axis=0)
    centre = scale[:, None] * (turn @ middle) + shift
    scale = np.exp(steady(np.log(scale), STEADY_SIZE))
    turn = nearest_rotation(steady(turn, STEADY_TURN))
    return Poses(scale, turn, steady(centre, STEADY_SHIFT) - scale[:, None] * (turn @ middle))


def align(points: np.ndarray, shape: np.ndarray) -> Poses:
    """Return the similarity maps that bring ``shape`` [N, 3] nearest to points [F, N, 3], by least squares."""
    middle, centre = shape.mean(axis=0), points.mean(axis=1)
    source, target = shape - middle, points - centre[:, None]
    # Umeyama's solution: the rotation of the covariance's singular vectors.
    left, size, right = np.linalg.svd(np.swapaxes(target, 1, 2) @ source)
    sign = np.ones((len(points), 3))
    sign[:, 2] = np.sign(np.linalg.det(left @ right))
    turn = (left * sign[:, None]) @ right
    scale = (size * sign).sum(axis=1) / (source**2).sum()
    return Poses(scale, turn, centre - scale[:, None] * (turn @ middle))


def nearest_rotation(matrices: np.ndarray) -> np.ndarray:
    """Return the rotations [F, 3, 3] nearest to matrices; nan rows stay nan."""
    result = np.full_like(matrices, np.nan)
    valid = np.isfinite(matrices).all(axis=(1, 2))
    left, _, right = np.linalg.svd(matrices[valid])
    sign = np.ones((int(valid.sum()), 3))
    sign[:, 2] = np.sign(np.linalg.det(left @ right))
    result[valid] = (left * sign[:, None]) @ right
    return result


def steady(values: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth [F, ...] over time by a Gaussian; nan frames neither count nor are filled."""
    from scipy.ndimage import gaussian_filter1d

    valid = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    out = np.full(values.shape, np.nan)
    if valid.any():
        share = gaussian_filter1d(valid.astype(float), sigma, mode="constant", truncate=3)
        total = gaussian_filter1d(np.nan_to_num(values), sigma, axis=0, mode="constant", truncate=3)
        out[valid] = total[valid] / share[valid].reshape(-1, *[1] * (values.ndim - 1))
    return out
