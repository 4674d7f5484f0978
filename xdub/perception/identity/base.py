"""Who is it: embeddings of faces. ``DlibIdentity`` needs 22 MB of weights, ``ArcFaceIdentity`` a file of the user's.

Both are plain differentiable torch modules with one interface. Each embedder has its own scale: a threshold belongs
to one of them.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdub.perception.mouth import umeyama


class Identity(nn.Module):
    """Base: alignment and calling conventions around an embedding network of aligned chips."""

    name: str
    chip_size: int
    template: np.ndarray  # [P, 2] px of the chip: where the points of `anchors` go
    crop_scale: float = 1.0  # of the face crops that come without landmarks
    crop_anchors: np.ndarray  # [P, 2]: where they lie in a face crop of scale 1, as fractions of its side

    @staticmethod
    def anchors(landmarks68: np.ndarray) -> np.ndarray:
        """The points [N, P, 2] that a face is aligned by."""
        raise NotImplementedError

    def embed_chips(self, chips: Tensor) -> Tensor:
        """Aligned faces [N, 3, chip, chip] RGB in [0, 1] -> embeddings [N, D], as the network gives them."""
        raise NotImplementedError

    def forward(self, faces: Tensor, landmarks68: Tensor | np.ndarray | None = None) -> Tensor:
        """Faces [N, 3, H, W] in [-1, 1] -> embeddings [N, D]; differentiable in the faces.

        Args:
            landmarks68: [N, 68, 2] px; None: the faces are face crops, framed as ``xdub.data.transforms`` frames them.
        """
        return self.embed_chips(self.align((faces + 1) / 2, landmarks68))

    def align(self, faces: Tensor, landmarks68: Tensor | np.ndarray | None) -> Tensor:
        """Faces [N, 3, H, W] -> chips [N, 3, chip, chip]; the border is repeated outside the picture."""
        height, width = faces.shape[-2:]
        if landmarks68 is None:
            anchors = 0.5 + (self.crop_anchors - 0.5) / self.crop_scale
            points = np.broadcast_to(anchors * (width, height), (len(faces), *anchors.shape))
        else:
            points = self.anchors(np.asarray(torch.as_tensor(landmarks68).cpu(), np.float64))
        matrix, shift = umeyama(np.broadcast_to(self.template, points.shape), points)  # chip -> picture
        step = float(np.sqrt(np.linalg.det(matrix)).mean())
        times = max(1, round(step))  # picture px per chip px: average, so that shrinking does not alias
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
        """[N, chip, chip, 2] in grid_sample's coordinates: -1 and 1 are the picture's outer borders."""
        centres = np.arange(self.chip_size) + 0.5
        chip = np.stack(np.meshgrid(centres, centres), axis=-1)
        picture = np.einsum("nij,hwj->nhwi", matrix, chip) + shift[:, None, None]
        return torch.from_numpy(picture / (width, height) * 2 - 1)

    @torch.no_grad()
    def embed(self, frames: np.ndarray, landmarks68: np.ndarray | None = None, batch: int = 16) -> np.ndarray:
        """Unit vectors [N, D] float32 of frames uint8 [N, H, W, 3]; nan where landmarks are."""
        device = next(self.parameters()).device
        parts = []
        for start in range(0, len(frames), batch):
            some = torch.from_numpy(np.ascontiguousarray(frames[start : start + batch])).to(device)
            points = None if landmarks68 is None else landmarks68[start : start + batch]
            vectors = self(some.permute(0, 3, 1, 2).float() / 127.5 - 1, _filled(points))
            vectors = F.normalize(vectors, dim=1).cpu().numpy()
            if points is not None:
                vectors[~np.isfinite(points).all(axis=(1, 2))] = np.nan
            parts.append(vectors)
        return np.concatenate(parts)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distance of embeddings [..., D] as the network gives them (dlib: same person below about 0.6)."""
    return np.linalg.norm(a - b, axis=-1)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of embeddings [..., D]."""
    return (a * b).sum(axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def _filled(points: np.ndarray | None) -> np.ndarray | None:
    """nan rows replaced by something that can be aligned; their result is thrown away."""
    if points is None:
        return None
    known = np.isfinite(points).all(axis=(1, 2))
    filled = points.copy()
    filled[~known] = np.random.default_rng(0).uniform(0, 50, points.shape[1:])
    return filled
