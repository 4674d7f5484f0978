"""Mouth measurements from landmarks: the opening of a mouth, and the distance between two mouths."""

from __future__ import annotations

from typing import Literal

import numpy as np

from xdub.perception.landmarks import MOUTH, eye_distance, five_points

ARCFACE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Eyes, tip of the nose and corners of the mouth in the ArcFace template of 112 x 112 px (Deng et al. 2019)."""
INNER_PAIRS = ((61, 67), (62, 66), (63, 65))
"""Points of the upper and the lower inner lip that face each other."""

Anchor = Literal["five", "eyes_nose"]
"""Points that align a face to the template."""


def mouth_opening(landmarks68: np.ndarray) -> np.ndarray:
    """Measure the gap between the inner lips over the eye distance, [...] for points [..., 68, 2]; nan where unknown.

    The value is the mean over three pairs of inner-lip points: about 0 closed, 0.1 to 0.3 in speech, 0.6 wide open.
    """
    points = np.asarray(landmarks68, np.float64)
    gaps = [np.linalg.norm(points[..., low, :] - points[..., up, :], axis=-1) for up, low in INNER_PAIRS]
    return (sum(gaps) / len(gaps) / eye_distance(points)).astype(np.float32)


def mouth_landmark_distance(a: np.ndarray, b: np.ndarray, anchor: Anchor = "five") -> np.ndarray:
    """Measure the mean distance of the 20 mouth points in px of the 112 px template, [...] for points [..., 68, 2].

    Umeyama's similarity first aligns both faces to the template (paper B.3). The points of ``five`` include the corners
    of the mouth, which absorb part of a jaw motion; ``eyes_nose`` excludes them.
    """
    moved = to_template(a, anchor)[..., MOUTH, :] - to_template(b, anchor)[..., MOUTH, :]
    return np.linalg.norm(moved, axis=-1).mean(axis=-1)


def to_template(landmarks68: np.ndarray, anchor: Anchor = "five") -> np.ndarray:
    """Align points [..., 68, 2] to the 112 px ArcFace template by the best similarity."""
    points = np.asarray(landmarks68, np.float64)
    count = {"five": 5, "eyes_nose": 3}[anchor]
    matrix, shift = umeyama(five_points(points)[..., :count, :], ARCFACE_112[:count])
    return points @ np.swapaxes(matrix, -1, -2) + shift[..., None, :]


def umeyama(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit the least-squares similarity (linear part [..., 2, 2], shift [..., 2]) of source to target [..., N, 2].

    In the plane the solution has a closed form over complex numbers, without reflections; nan points yield nan.
    """
    target = np.broadcast_to(target, source.shape)
    source_mean, target_mean = source.mean(axis=-2), target.mean(axis=-2)
    p, q = source - source_mean[..., None, :], target - target_mean[..., None, :]
    power = (p**2).sum(axis=(-1, -2))
    cosine = (p * q).sum(axis=(-1, -2)) / power
    sine = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(axis=-1) / power
    matrix = np.stack([np.stack([cosine, -sine], axis=-1), np.stack([sine, cosine], axis=-1)], axis=-2)
    return matrix, target_mean - (matrix @ source_mean[..., None])[..., 0]
