"""Image features for the texture phase (Eq. 13): a fixed filter bank by default, CLIP's image encoder in production.

Both networks map crops [N, 3, H, W] in [-1, 1] to features [N, d]. They are frozen and differentiable in the pixels.
Their ``name`` is recorded with the results.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xdub.config import PerceptionConfig, required_path
from xdub.perception.network_files import load_pretrained

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of CLIP's pixels in [0, 1]."""


class FaceFeatureNet(nn.Module):
    """Colour and oriented edges at three scales on a coarse grid, without learned weights.

    It is the default of the texture loss, in place of CLIP. It compares skin, hair, light, contours and sharpness by
    position and carries no identity. All responses are signed or centred, so the cosine of two unrelated faces is well
    below 1.
    """

    name = "fixed-filter-bank"
    filters: Tensor
    """[2 orientations, 1, 7, 7] Gabor filters"""
    opponent: Tensor
    """[3, 3] opponent colours"""

    def __init__(self, side: int = 64, grid: int = 6, orientations: int = 4) -> None:
        super().__init__()
        self.side, self.grid = side, grid
        self.register_buffer("filters", _gabor_bank(orientations), persistent=False)
        self.register_buffer("opponent", _opponent_colours(), persistent=False)

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        responses = int(self.filters.shape[0])
        return self.grid**2 * (3 + 3 * (responses + responses // 2))

    def forward(self, frames: Tensor) -> Tensor:
        """Map [N, 3, H, W] in [-1, 1] to [N, dim] of unit length."""
        if frames.dim() != 4 or frames.shape[1] != 3:
            raise ValueError(f"frames must be [N, 3, H, W], got {tuple(frames.shape)}")
        picture = F.interpolate(
            frames, (self.side,) * 2, mode="bilinear", antialias=True, align_corners=False
        )
        picture = torch.einsum("oc,nchw->nohw", self.opponent.to(picture.dtype), picture)
        parts = [_unit(self._pool(picture))]
        light = picture[:, :1]
        for _ in range(3):
            responses = F.conv2d(F.pad(light, (3, 3, 3, 3), mode="replicate"), self.filters.to(light.dtype))
            even, odd = responses.chunk(2, dim=1)
            energy = (even.square() + odd.square() + 1e-4).sqrt()
            # Subtract the picture's mean, so that the value is large where this edge is more frequent than elsewhere.
            texture = energy - energy.mean((2, 3), keepdim=True)
            parts += [_unit(self._pool(responses)), _unit(self._pool(texture))]
            light = F.avg_pool2d(light, 2)
        return F.normalize(torch.cat(parts, dim=1), dim=1)

    def _pool(self, maps: Tensor) -> Tensor:
        return rearrange(F.adaptive_avg_pool2d(maps, self.grid), "n c h w -> n (c h w)")


class ClipFeatures(nn.Module):
    """CLIP's image encoder (transformers) from a folder or hub name."""

    name = "clip"
    mean: Tensor
    std: Tensor

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        from transformers import CLIPVisionModelWithProjection

        network = load_pretrained(CLIPVisionModelWithProjection, "perception.features_path", path)
        self.net = network.eval().requires_grad_(False)
        self.side = self.net.config.image_size
        self.register_buffer("mean", torch.tensor(CLIP_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD)[:, None, None], persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Map [N, 3, H, W] in [-1, 1] to [N, projection_dim] of unit length."""
        size = (self.side, self.side)
        picture = F.interpolate(frames, size, mode="bicubic", antialias=True, align_corners=False).clamp(
            -1, 1
        )
        pixels = ((picture + 1) / 2 - self.mean) / self.std
        return F.normalize(self.net(pixel_values=pixels).image_embeds, dim=1)


def load_features(cfg: PerceptionConfig) -> nn.Module:
    """Load the network that a recipe's ``perception`` section selects for the role ``features``."""
    if cfg.features == "tiny":
        return FaceFeatureNet().eval()
    return ClipFeatures(required_path(cfg, "features")).eval()


def _unit(part: Tensor) -> Tensor:
    """Normalise a group of features, so that every group has the same weight."""
    return F.normalize(part, dim=1)


def _opponent_colours() -> Tensor:
    """Return lightness, red minus green, blue minus yellow: [3, 3], rows of unit length."""
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [-1.0, -1.0, 2.0]])
    return F.normalize(rows, dim=1)


def _gabor_bank(orientations: int) -> Tensor:
    """Return [2 * orientations, 1, 7, 7]: even, then odd Gabor filters of wavelength 5 px, zero mean, unit length."""
    offsets = torch.arange(7, dtype=torch.float64) - 3
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * 1.7**2))
    bank = []
    for wave in (torch.cos, torch.sin):
        for k in range(orientations):
            angle = math.pi * k / orientations
            carrier = wave(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / 5)
            kernel = envelope * carrier
            kernel = kernel - envelope * (kernel.sum() / envelope.sum())
            bank.append(kernel / kernel.norm())
    return torch.stack(bank)[:, None].float()
