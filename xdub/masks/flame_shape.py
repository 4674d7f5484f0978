"""Face masks as in the paper (B.2): SMIRK fits FLAME to each frame, the jaw is fixed, and the face is projected."""

from __future__ import annotations

import numpy as np
import torch

from xdub.masks.face_shape import FIXED_JAW, FaceViews
from xdub.masks.flame import JAW, JOINTS, Flame
from xdub.masks.smirk import SIDE, Smirk, smirk_boxes
from xdub.perception.face_geometry import VERTICES
from xdub.perception.face_mesh import hull_masks

BATCH = 32
"""Pictures that are fitted at once."""


class FlameShape:
    """Masks of the whole face from FLAME; pose, shape and expression of each frame are kept."""

    name = "flame"

    def __init__(self, flame: Flame, smirk: Smirk, device: torch.device) -> None:
        self._flame, self._smirk, self._device = flame, smirk.to(device), device
        self._face = flame.face_vertices()

    def masks(self, views: FaceViews) -> np.ndarray:
        """Return bool [F, S, S]; see `FaceShape.masks`."""
        size = views.frames.shape[1]
        return hull_masks(self.outline(views), size, size)

    @torch.inference_mode()
    def outline(self, views: FaceViews, jaw: float | None = FIXED_JAW) -> np.ndarray:
        """Return the projected vertices [F, N, 2] px of the face, nan without a face.

        ``jaw``: opening in radians; None keeps the frames' own.
        """
        mesh = views.mesh[:, :VERTICES]
        points = np.full((len(mesh), len(self._face), 2), np.nan)
        valid = np.flatnonzero(np.isfinite(mesh).all(axis=(1, 2)))
        for start in range(0, len(valid), BATCH):
            index = valid[start : start + BATCH]
            boxes = smirk_boxes(mesh[index])
            pictures = torch.from_numpy(_pictures(views.frames[index], boxes)).to(self._device)
            fit = self._smirk(pictures.permute(0, 3, 1, 2).float() / 255)
            pose = torch.zeros(len(index), JOINTS, 3)
            pose[:, 0], pose[:, JAW] = fit.turn.cpu(), fit.jaw.cpu()
            if jaw is not None:
                pose[:, JAW] = torch.tensor([jaw, 0.0, 0.0])
            vertices = self._flame.vertices(fit.shape.cpu(), fit.expression.cpu(), pose)[:, self._face]
            camera = fit.camera.cpu()[:, None]
            # The projection's y points up.
            flat = (camera[..., :1] * (vertices[..., :2] + camera[..., 1:])) * torch.tensor([1.0, -1.0])
            corner, side = boxes[:, None, :2] - boxes[:, None, 2:] / 2, boxes[:, None, 2:]
            points[index] = corner + (flat.numpy() + 1) / 2 * side
        return points


def _pictures(frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Cut uint8 [F, 224, 224, 3] at boxes [F, 3] px; outside, the picture's edge is repeated."""
    import cv2

    pictures = []
    for frame, (x, y, side) in zip(frames, boxes, strict=True):
        ratio = SIDE / side
        # Pixel i covers [i, i + 1], so its centre lies at i + 0.5.
        shift = [ratio * (0.5 - (middle - side / 2)) - 0.5 for middle in (x, y)]
        matrix = np.array([[ratio, 0, shift[0]], [0, ratio, shift[1]]])
        pictures.append(
            cv2.warpAffine(frame, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
        )
    return np.stack(pictures)
