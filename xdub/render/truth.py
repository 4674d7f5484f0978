"""Ground truth from the mesh, never from pixels: landmarks, mouth opening, masks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from xdub.render.avatar import PIVOT, Avatar, Shape, load_avatar
from xdub.render.gl import project
from xdub.render.motion import Motion

FIXED_JAW = 0.4
"""Jaw opening of the face mask, the same for all speech (paper B.2)."""
LIP_PAIRS = ((61, 67), (62, 66), (63, 65))
"""Points of the upper and the lower inner lip."""


def to_world(positions: np.ndarray, weight: np.ndarray, motion: Motion) -> np.ndarray:
    """Move positions [F,N,3] with skull weight [N] to the world [F,N,3], as the vertex program does."""
    moved = np.einsum("fij,fnj->fni", motion.turn, positions - PIVOT) + PIVOT + motion.shift[:, None]
    return positions + weight[None, :, None] * (moved - positions)


def landmarks(
    avatar: Avatar, positions: np.ndarray, motion: Motion, camera: np.ndarray, size: int
) -> np.ndarray:
    """Compute iBUG-68 points [F,68,2] float32 in picture px from vertices [F,V,3]."""
    ids = avatar.landmark_ids
    world = to_world(positions[:, ids].astype(np.float64), avatar.head_weight[ids], motion)
    return project(world, camera, size).astype(np.float32)


def opening(avatar: Avatar, positions: np.ndarray, shape: Shape) -> np.ndarray:
    """Compute the gap [F] float32 between the inner lips over the eyeballs' distance, in the head's frame (no pose)."""
    points = positions[:, avatar.landmark_ids]
    gap = np.mean([points[:, up, 1] - points[:, low, 1] for up, low in LIP_PAIRS], 0)
    return (np.maximum(gap, 0) / np.linalg.norm(shape.eyes[0] - shape.eyes[1])).astype(np.float32)


@lru_cache(maxsize=1)
def _lower_face() -> np.ndarray:
    """Return the vertex numbers of the face from below the eyes to under the chin."""
    avatar = load_avatar()
    x, y, z = avatar.base.T
    region = (avatar.part == 0) & (avatar.inside == 0) & (avatar.head_weight > 0.9)
    return np.flatnonzero(region & (y < 7.10) & (y > 6.12) & (z > 0.80) & (np.abs(x) < 0.62))


def face_outline(avatar: Avatar, shape: Shape, motion: Motion, camera: np.ndarray, size: int) -> np.ndarray:
    """Compute the lower face [F,N,2] in px at this pose, with resting lips and the jaw at FIXED_JAW."""
    curve = np.zeros((1, 52), np.float32)
    curve[0, avatar.unit["jawOpen"]] = FIXED_JAW
    ids = _lower_face()
    still = avatar.positions(shape, curve)[:, ids].astype(np.float64)
    still = np.repeat(still, len(motion.turn), 0)
    return project(to_world(still, avatar.head_weight[ids], motion), camera, size).astype(np.float32)


def changed_boxes(
    avatar: Avatar, one: np.ndarray, other: np.ndarray, motion: Motion, camera: np.ndarray, size: int
) -> list[tuple[int, int, int, int]]:
    """Compute per frame the box (x0, y0, x1, y1) in px within which two takes [F,V,6] of one motion can differ."""
    changed = (one != other).any((0, 2))
    ids = np.unique(avatar.triangles[changed[avatar.triangles].any(1)])
    if not len(ids):
        return [(0, 0, 1, 1)] * len(one)
    points = np.concatenate([take[:, ids, :3] for take in (one, other)], 1).astype(np.float64)
    weight = np.tile(avatar.head_weight[ids], 2)
    pixels = project(to_world(points, weight, motion), camera, size)
    low = np.clip(np.floor(pixels.min(1)) - 2, 0, size - 1).astype(int)
    high = np.clip(np.ceil(pixels.max(1)) + 2, low + 1, size).astype(int)
    return [(int(a), int(b), int(c), int(d)) for (a, b), (c, d) in zip(low, high, strict=True)]


def hull_masks(points: np.ndarray, size: int, grow: float) -> np.ndarray:
    """Fill convex hulls [F,size,size] bool of points [F,N,2] (px), grown about their centres by the factor `grow`."""
    import cv2

    masks = np.zeros((len(points), size, size), np.uint8)
    for mask, cloud in zip(masks, points, strict=True):
        hull = cv2.convexHull(cloud.astype(np.float32))[:, 0]
        middle = (hull.min(0) + hull.max(0)) / 2
        hull = (hull - middle) * grow + middle
        cv2.fillConvexPoly(mask, np.rint((hull - 0.5) * 16).astype(np.int32), 1, shift=4)
    return masks.astype(bool)
