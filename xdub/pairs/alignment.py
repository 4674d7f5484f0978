"""Mouth distance in the ArcFace template (paper B.3): Umeyama's similarity transform, frame by frame.

Aligning with all five template points follows the paper, but the two mouth corners among them absorb part of what is
to be measured (a jaw 3 px lower leaves 1 px); eyes and nose alone do not. Both distances are kept in the pair's scores.
"""

from __future__ import annotations

import numpy as np

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Eyes, nose tip, mouth corners in a 112 px square; eyes 35.2 px apart."""
FIVE, RIGID = (0, 1, 2, 3, 4), (0, 1, 2)
MOUTH = slice(48, 68)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eye centres, nose tip, mouth corners [F,5,2] float64 of iBUG-68 landmarks [F,68,2]."""
    points = np.asarray(landmarks, np.float64)
    return np.stack(
        [points[:, 36:42].mean(1), points[:, 42:48].mean(1), points[:, 30], points[:, 48], points[:, 54]], axis=1
    )


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares similarity [F,2,3] (rotation, one scale, shift; never a reflection) from points [F,N,2] to [N,2]."""
    mean_s, mean_t = source.mean(1, keepdims=True), target.mean(0)
    s, t = source - mean_s, target - mean_t
    # In the plane a rotation with scale is multiplication by one complex number.
    s_c, t_c = s[..., 0] + 1j * s[..., 1], t[..., 0] + 1j * t[..., 1]
    power = (np.abs(s_c) ** 2).sum(1)
    factor = (np.conj(s_c) * t_c).sum(1) / np.where(power > 0, power, np.nan)
    linear = np.stack(
        [np.stack([factor.real, -factor.imag], -1), np.stack([factor.imag, factor.real], -1)], axis=1
    )
    shift = mean_t - np.einsum("fij,fj->fi", linear, mean_s[:, 0])
    return np.concatenate([linear, shift[..., None]], axis=2)


def to_template(landmarks: np.ndarray, using: tuple[int, ...] = FIVE) -> np.ndarray:
    """Landmarks [F,68,2] brought into the 112 px template by the chosen of its five points; nan rows stay nan."""
    matrix = umeyama(five_points(landmarks)[:, list(using)], TEMPLATE[list(using)])
    return np.einsum("fij,fnj->fni", matrix[..., :2], np.asarray(landmarks, np.float64)) + matrix[:, None, :, 2]


def mouth_distance(one: np.ndarray, other: np.ndarray, using: tuple[int, ...] = FIVE) -> float:
    """Mean distance of the 20 mouth points of two landmark tracks [F,68,2], template px; nan if no frame has both."""
    apart = np.linalg.norm(to_template(one, using)[:, MOUTH] - to_template(other, using)[:, MOUTH], axis=-1)
    known = apart[np.isfinite(apart).all(axis=1)]
    return float(known.mean()) if len(known) else float("nan")
