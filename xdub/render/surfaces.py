"""Pieces of geometry fixed to the head or the body, and tools that lift, smooth and shade surfaces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from xdub.render.avatar import Avatar, Shape


@dataclass
class Piece:
    """Extra geometry of n vertices, fixed in the head's or the body's frame. Fields are those of `gl.Mesh`."""

    position: np.ndarray  # [n,3]
    normal: np.ndarray  # [n,3]
    cut: np.ndarray  # [n]
    uv: np.ndarray  # [n,2]
    tint: np.ndarray  # [n,4]
    mark: np.ndarray  # [n,4]
    triangles: np.ndarray  # [t,3] numbers within the piece
    hair: bool = False
    hides: np.ndarray | None = None  # [V] bool: vertices of the body that the piece covers


def smooth_step(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """Compute a smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def shell(
    avatar: Avatar, shape: Shape, normal: np.ndarray, cover: np.ndarray, offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lift the body's triangles under `cover` [V] along their normals by `offset` [V].

    Returns:
        Vertex numbers [n], positions [n,3], and triangles [t,3] within these vertices.
    """
    body = avatar.triangles[avatar.part[avatar.triangles[:, 0]] == 0]
    chosen = body[(cover[body] > 0).all(1)]
    ids, local = np.unique(chosen, return_inverse=True)
    return ids, shape.vertices[ids] + normal[ids] * offset[ids, None], local.reshape(-1, 3)


def smooth_normals(position: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Compute area-weighted vertex normals [n,3]."""
    a, b, c = (position[triangles[:, k]] for k in range(3))
    facing = np.cross(b - a, c - a)
    total = np.zeros_like(position)
    for k in range(3):
        np.add.at(total, triangles[:, k], facing)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)


def ambient(avatar: Avatar) -> np.ndarray:
    """Compute ambient visibility [V] in 0..1 of each vertex from the surface's curvature at three scales."""
    triangles = avatar.solid
    count = len(avatar.base)
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    adjacency = sparse.csr_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count))
    adjacency.data[:] = 1.0
    degree = np.maximum(np.asarray(adjacency.sum(1)).ravel(), 1)
    mean = sparse.diags(1 / degree) @ adjacency
    flat = np.zeros((1, 52), np.float32)
    normal = avatar.moving(Shape(avatar.base, avatar.eye_base.astype(np.float32)), flat)[0, :, 3:]
    total = np.zeros(count)
    smooth = avatar.base.astype(float)
    for rounds, weight in ((1, 6.0), (5, 5.0), (20, 4.0)):
        for _ in range(rounds):
            smooth = mean @ smooth
        total += weight * np.maximum(((smooth - avatar.base) * normal).sum(1), 0)
    for _ in range(2):
        total = mean @ total
    # The throat and the shoulders are nearly flat.
    total *= 0.3 + 0.7 * smooth_step(5.6, 6.4, avatar.base[:, 1])
    return np.clip(1 - total, 0.12, 1)
