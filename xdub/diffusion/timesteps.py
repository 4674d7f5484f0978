"""Eq. 2: where on the noise axis a phase trains."""

from __future__ import annotations

import torch
from torch import Tensor


def shift_timesteps(u: Tensor, alpha: float) -> Tensor:
    """Eq. 2: t = alpha u / (1 + (alpha - 1) u). alpha > 1 moves weight to high noise, < 1 to low noise.

    The denominator is written so that rounding never carries t beyond 1.
    """
    return alpha * u / (alpha * u + (1 - u))


def sample_timesteps(batch: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Logit-normal u, shifted by Eq. 2. Returns [batch] float32 in (0, 1)."""
    return shift_timesteps(torch.sigmoid(torch.randn(batch, generator=generator)), alpha)
