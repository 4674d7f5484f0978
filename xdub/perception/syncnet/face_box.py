"""Square cut-outs of a face crop for SyncNets: their boxes from landmarks, and their differentiable resampling.

A box follows eyes and nose, never the lips, because a box that moved with the lips would hide their motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xdub.perception.landmarks import EYE_CORNERS, EYE_TO_NOSE, NOSE_BASE

SMOOTH = 5
"""Frames over which boxes are averaged, so that they do not follow the tracker's noise."""


@dataclass(frozen=True, kw_only=True)
class FaceBox:
    """Size and position of a square on the face, in units of the distance between the eyes' centres."""

    drop: float
    """Distance from the eyes down to the centre."""
    side: float
    fallback: tuple[float, float, float, float]
    """(left, top, right, bottom) in units of the crop's side, for frames without landmarks."""

    def boxes(self, landmarks: Tensor, height: int, width: int) -> Tensor:
        """Return boxes [B, F, 4] (left, top, right, bottom) in px of crops of height x width px.

        Args:
            landmarks: [B, F, 68, 2] in crop px; frames with nan get the fallback box, rounded to whole px.
        """
        points = landmarks.float()
        corners = points[..., EYE_CORNERS, :]
        left, right = corners[..., :2, :].mean(-2), corners[..., 2:, :].mean(-2)
        eyes, nose = (left + right) / 2, points[..., NOSE_BASE, :]
        # A turn of the head shortens one of the two distances only, so the longer one determines the size.
        across, down = (right - left).norm(dim=-1), (nose - eyes).norm(dim=-1)
        unit = torch.maximum(across, down / EYE_TO_NOSE)
        centre = eyes + (self.drop / EYE_TO_NOSE) * (nose - eyes)
        squares, valid = _smoothed(torch.cat([centre, (self.side * unit)[..., None]], dim=-1))
        half = squares[..., 2:] / 2
        own = torch.cat([squares[..., :2] - half, squares[..., :2] + half], dim=-1)
        low_x, low_y, high_x, high_y = self.fallback
        fixed = [round(low_x * width), round(low_y * height), round(high_x * width), round(high_y * height)]
        return torch.where(valid[..., None], own, own.new_tensor(fixed))


def resample(frames: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut boxes [N, 4] (px) out of pictures [N, C, H, W] and resample them to [N, C, size, size].

    The weights are those of bilinear interpolation with antialiasing. Outside the picture its edge is repeated. The
    cut is two matrix products, so its gradient is deterministic on every device.
    """
    rows = _weights(boxes[:, 1], boxes[:, 3], frames.shape[-2], size).to(frames.dtype)
    columns = _weights(boxes[:, 0], boxes[:, 2], frames.shape[-1], size).to(frames.dtype)
    return torch.einsum("nih,nchw,njw->ncij", rows, frames, columns)


def _weights(low: Tensor, high: Tensor, length: int, size: int) -> Tensor:
    """Return weights [N, size, length] of ``length`` pixels for ``size`` samples of low ... high [N]."""
    step = (high - low) / size
    offsets = torch.arange(size, device=low.device) + 0.5
    centres = (low[:, None] + offsets * step[:, None]).clamp(0.5, length - 0.5)
    pixels = torch.arange(length, device=low.device)
    distance = (pixels + 0.5 - centres[..., None]).abs() / step.clamp_min(1.0)[:, None, None]
    # Pixels beyond the box do not contribute.
    first, last = low.floor().clamp_max(length - 1), high.ceil().clamp_min(1)
    inside = (pixels >= first[:, None]) & (pixels < last[:, None])
    weights = (1 - distance).clamp_min(0) * inside[:, None]
    return weights / weights.sum(-1, keepdim=True)


def _smoothed(values: Tensor) -> tuple[Tensor, Tensor]:
    """Average values [B, F, K] over `SMOOTH` frames without nan; also return where a frame has values, [B, F]."""
    valid = values.isfinite().all(-1)
    batch, frames, kinds = values.shape
    clean = torch.where(valid[..., None], values, 0.0)
    both = torch.cat([clean, valid[..., None].to(values.dtype)], dim=-1).transpose(1, 2)
    sums = F.avg_pool1d(both, SMOOTH, stride=1, padding=SMOOTH // 2) * SMOOTH
    mean = (sums[:, :kinds] / sums[:, kinds:].clamp_min(1)).transpose(1, 2)
    return mean.reshape(batch, frames, kinds), valid
