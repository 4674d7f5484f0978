"""Timesteps of training (Eq. 2) and the straight path between data and noise (Eq. 5, 10).

All latents are [B, C, f, h, w], and t is [B] in [0, 1].

Noising (Eq. 4) is the operator `xdub_kernels.add_noise`, whose reference is the formula.
"""

from __future__ import annotations

import torch
from torch import Tensor


def motion_frame_mask(num_frames: int, motion_frames: Tensor | int, batch: int) -> Tensor:
    """Return bool [B, f] on the CPU: True where a latent frame is a clean motion frame (3.1.1)."""
    counts = torch.as_tensor(motion_frames).expand(batch)
    return torch.arange(num_frames)[None, :] < counts.cpu()[:, None]


def frame_times(t: Tensor, clean: Tensor) -> Tensor:
    """Return the timestep of every latent frame [B, f] of t [B]: 0 where bool ``clean`` [B, f] marks a motion frame."""
    return t[:, None].expand(clean.shape).masked_fill(clean, 0.0)


def velocity(z0: Tensor, eps: Tensor) -> Tensor:
    """Return v = eps - z_0 (Eq. 5)."""
    return eps - z0


def shift_timesteps(u: Tensor, alpha: float) -> Tensor:
    """Return t = alpha u / (1 + (alpha - 1) u) (Eq. 2). alpha > 1 moves weight to high noise, < 1 to low noise.

    The denominator is written so that rounding never carries t beyond 1.
    """
    return alpha * u / (alpha * u + (1 - u))


def rounded_time(t: float) -> float:
    """Return t as a network with rounded timesteps reads it: 1000 t in bf16, e.g. 0.996 for 0.9953."""
    return float((1000 * torch.tensor(t, dtype=torch.float32)).bfloat16()) / 1000


def sample_timesteps(batch: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Return timesteps [batch] float32 in (0, 1): logit-normal u, shifted by Eq. 2."""
    return shift_timesteps(torch.sigmoid(torch.randn(batch, generator=generator)), alpha)
