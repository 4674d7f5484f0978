"""Timesteps of training: the part of the noise axis where a phase trains (Eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor


def shift_timesteps(u: Tensor, alpha: float) -> Tensor:
    """Return t = alpha u / (1 + (alpha - 1) u) (Eq. 2). alpha > 1 moves weight to high noise, < 1 to low noise.

    The denominator is written so that rounding never carries t beyond 1.
    """
    return alpha * u / (alpha * u + (1 - u))


def sample_timesteps(batch: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Return timesteps [batch] float32 in (0, 1): logit-normal u, shifted by Eq. 2."""
    return shift_timesteps(torch.sigmoid(torch.randn(batch, generator=generator)), alpha)
