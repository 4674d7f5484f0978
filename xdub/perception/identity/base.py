"""Embeddings of faces: differentiable torch modules with one interface.

Each embedder has its own scale, so a threshold holds for one embedder only (`xdub.config.embedders`).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdub.perception.landmarks import five_points
from xdub.perception.mouth import ARCFACE_112, umeyama


class Identity(nn.Module):
    """Base class: alignment and calling conventions around a network that embeds aligned chips."""

    name: str
    chip_size: int
    """Side of the aligned face, px."""
    template: np.ndarray
    """[P, 2] position of the points of `anchors` in the chip, px"""
    crop_scale: float = 1.0
    """Scale of face crops without landmarks, see `xdub.data.transforms`."""
    crop_drop: float = 0.0
    """Distance, in sides of a crop of scale 1, by which faces in crops without landmarks lie lower."""
    crop_anchors: np.ndarray
    """[P, 2] position of the points of `anchors` in a face crop of scale 1, as fractions of its side"""

    @staticmethod
    def anchors(landmarks68: np.ndarray) -> np.ndarray:
        """Return the points [N, P, 2] that align a face."""
        raise NotImplementedError

    def embed_chips(self, chips: Tensor) -> Tensor:
        """Map aligned faces [N, 3, chip, chip] RGB in [0, 1] to embeddings [N, D], not normalised."""
        raise NotImplementedError

    def forward(self, faces: Tensor, landmarks68: Tensor | np.ndarray | None = None) -> Tensor:
        """Map faces [N, 3, H, W] in [-1, 1] to embeddings [N, D], differentiable in the faces.

        Args:
            landmarks68: [N, 68, 2] px; None if the faces are crops of ``xdub.data.transforms``.
        """
        return self.embed_chips(self.align((faces + 1) / 2, landmarks68))

    def align(self, faces: Tensor, landmarks68: Tensor | np.ndarray | None) -> Tensor:
        """Align faces [N, 3, H, W] to chips [N, 3, chip, chip]; the border is repeated outside the picture."""
        height, width = faces.shape[-2:]
        if landmarks68 is None:
            anchors = 0.5 + (self.crop_anchors - 0.5 + (0, self.crop_drop)) / self.crop_scale
            points = np.broadcast_to(anchors * (width, height), (len(faces), *anchors.shape))
        else:
            points = self.anchors(np.asarray(torch.as_tensor(landmarks68).cpu(), np.float64))
        # The similarity maps the chip to the picture.
        matrix, shift = umeyama(np.broadcast_to(self.template, points.shape), points)
        step = float(np.sqrt(np.linalg.det(matrix)).mean())
        # Average as many picture px as one chip px covers, so that shrinking does not alias.
        times = max(1, round(step))
        if times > 1:
            faces = F.avg_pool2d(faces, times, ceil_mode=False)
            height, width = (length // times * times for length in (height, width))
        return F.grid_sample(
            faces,
            self._grid(matrix, shift, height, width).to(faces),
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )

    def _grid(self, matrix: np.ndarray, shift: np.ndarray, height: int, width: int) -> Tensor:
        """Return [N, chip, chip, 2] in grid_sample's coordinates; -1 and 1 are the picture's outer borders."""
        centres = np.arange(self.chip_size) + 0.5
        chip = np.stack(np.meshgrid(centres, centres), axis=-1)
        picture = np.einsum("nij,hwj->nhwi", matrix, chip) + shift[:, None, None]
        return torch.from_numpy(picture / (width, height) * 2 - 1)

    @torch.no_grad()
    def embed(self, frames: np.ndarray, landmarks68: np.ndarray | None = None, batch: int = 16) -> np.ndarray:
        """Embed frames uint8 [N, H, W, 3] as unit vectors [N, D] float32; nan where landmarks are nan."""
        device = next(self.parameters()).device
        parts = []
        for start in range(0, len(frames), batch):
            faces = torch.from_numpy(np.ascontiguousarray(frames[start : start + batch])).to(device)
            points = None if landmarks68 is None else landmarks68[start : start + batch]
            vectors = self(faces.permute(0, 3, 1, 2).float() / 127.5 - 1, _filled(points))
            vectors = F.normalize(vectors, dim=1).cpu().numpy()
            if points is not None:
                vectors[~np.isfinite(points).all(axis=(1, 2))] = np.nan
            parts.append(vectors)
        return np.concatenate(parts)


class FivePointIdentity(Identity):
    """Base class of networks whose faces are aligned to the ArcFace template by eyes, nose and corners of the mouth."""

    chip_size = 112
    template = ARCFACE_112
    crop_anchors = np.array([[0.318, 0.184], [0.682, 0.184], [0.5, 0.405], [0.35, 0.596], [0.65, 0.596]])

    @staticmethod
    def anchors(landmarks68: np.ndarray) -> np.ndarray:
        """Return eyes, tip of the nose and corners of the mouth, [N, 5, 2]."""
        return five_points(landmarks68)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance of embeddings [..., D], not normalised; for dlib, one person is below about 0.6."""
    return np.linalg.norm(a - b, axis=-1)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of embeddings [..., D]."""
    return (a * b).sum(axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def _filled(points: np.ndarray | None) -> np.ndarray | None:
    """Replace nan rows by random points that can be aligned; the caller discards their result."""
    if points is None:
        return None
    valid = np.isfinite(points).all(axis=(1, 2))
    filled = points.copy()
    filled[~valid] = np.random.default_rng(0).uniform(0, 50, points.shape[1:])
    return filled
