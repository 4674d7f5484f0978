"""A face without its head motion: the colours of a clip on a fixed grid of the person's shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xdub.masks.face_model import Poses, head_poses, person_shape
from xdub.masks.face_shape import FaceViews
from xdub.perception.face_geometry import VERTICES
from xdub.perception.face_mesh import hull_masks

MOST_TURN = np.radians(20)
"""Turn of the head in radians beyond which light changes the colours of a face as much as an object does."""
CELL = 0.15
"""Side of a cell in cm; a crop of 128 px shows about 0.14 cm a px."""
LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
"""Outer contour of the lips."""
LIP_ROOM = 1.25
"""Enlargement of each frame's lips, within which the colours of a speaking mouth are expected."""
EYES = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))
"""Contours of the eyes."""
BROWS = ((46, 53, 52, 65, 55, 70, 63, 105, 66, 107), (276, 283, 282, 295, 285, 300, 293, 334, 296, 336))
"""Contours of the brows."""
FEATURE_ROOM = 0.5
"""Room in cm around eyes and brows for blinks and raised brows."""


@dataclass(frozen=True, eq=False)
class FaceTexture:
    """Colours of F frames on a grid of H x W cells; the grid covers the closed face of the person's shape."""

    lab: np.ndarray
    """[F, H, W, 3] float32, CIE Lab"""
    pixels: np.ndarray
    """[F, H, W, 2] float32, position of each cell in px of the crops"""
    face: np.ndarray
    """[H, W] bool, cells of the face"""
    mouth: np.ndarray
    """[F, H, W] bool, cells of the lips and the open mouth in each frame"""
    features: np.ndarray
    """[H, W] bool, cells of eyes and brows"""
    valid: np.ndarray
    """[F] bool, frames with a face that is turned by less than `MOST_TURN` against the clip's usual view"""


def face_texture(views: FaceViews, lab: np.ndarray) -> FaceTexture:
    """Sample Lab crops [F, S, S, 3] float32 of a face on its grid. Raise ValueError without any face."""
    import cv2
    from scipy.interpolate import LinearNDInterpolator

    shape = person_shape(views.person)
    poses = head_poses(views.mesh, shape)
    low, high = shape[:, :2].min(axis=0), shape[:, :2].max(axis=0)
    width, height = np.ceil((high - low) / CELL).astype(int) + 1
    x, y = low[0] + CELL * np.arange(width), low[1] + CELL * np.arange(height)
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    depth = LinearNDInterpolator(shape[:VERTICES, :2], shape[:VERTICES, 2])(grid)
    face = _hull(shape[:, :2], low, (height, width)) & np.isfinite(depth)
    points = np.concatenate([grid, np.nan_to_num(depth)[..., None]], axis=-1).reshape(-1, 3)
    pixels = _project(poses, points).reshape(len(lab), height, width, 2)
    valid = _usual_view(poses)
    colours = np.zeros((len(lab), height, width, 3), np.float32)
    for n in np.flatnonzero(valid):
        # Pixel i covers [i, i + 1], so its centre lies at i + 0.5.
        position = pixels[n] - 0.5
        colours[n] = cv2.remap(
            lab[n], position, np.empty(0, np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    features = np.zeros_like(face)
    for contour in (*EYES, *BROWS):
        around = np.concatenate([shape[list(contour), :2] + offset for offset in _ring(FEATURE_ROOM)])
        features |= _hull(around, low, (height, width))
    mouth = _mouth_cells(views.mesh, pixels, lab.shape[1])
    return FaceTexture(colours, pixels, face, mouth & face, features & face, valid)


def _mouth_cells(mesh: np.ndarray, pixels: np.ndarray, size: int) -> np.ndarray:
    """Return bool [F, H, W]: the cells at the lips and the open mouth of each frame's own mesh [F, 478, 3] px."""
    lips = mesh[:, list(LIPS), :2]
    middle = lips.mean(axis=1, keepdims=True)
    mouths = hull_masks((lips - middle) * LIP_ROOM + middle, size, size)
    x, y = np.moveaxis(np.clip(np.nan_to_num(np.floor(pixels)), 0, size - 1).astype(int), -1, 0)
    return mouths[np.arange(len(mesh))[:, None, None], y, x]


def _usual_view(poses: Poses) -> np.ndarray:
    """Return bool [F]: True in frames whose turn is near the median view of the clip."""
    ahead = poses.turn[:, :, 2]
    valid = np.isfinite(ahead).all(axis=1)
    usual = np.median(ahead[valid], axis=0)
    cos = np.full(len(ahead), -1.0)
    cos[valid] = ahead[valid] @ usual / np.linalg.norm(usual)
    return cos > np.cos(MOST_TURN)


def _project(poses: Poses, points: np.ndarray) -> np.ndarray:
    return poses.apply(points)[..., :2].astype(np.float32)


def _ring(radius: float) -> np.ndarray:
    """Return 8 offsets [8, 2] of a length."""
    angle = np.arange(8) * np.pi / 4
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _hull(points: np.ndarray, low: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the cells bool [H, W] in the convex hull of points [N, 2] in cm."""
    return hull_masks((points - low)[None] / CELL + 0.5, *size)[0]
