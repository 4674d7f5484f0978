"""Eq. 4, 5, 9, 10: the straight path between data and noise. All tensors [B, C, f, h, w], t [B] in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def motion_frame_mask(num_frames: int, motion_frames: Tensor | int, batch: int) -> Tensor:
    """True where a latent frame is a clean motion frame (3.1.1). Returns [B, f] bool."""
    counts = torch.as_tensor(motion_frames).expand(batch)
    return torch.arange(num_frames)[None, :] < counts.cpu()[:, None]


def _per_frame(t: Tensor, z: Tensor, motion_frames: Tensor | int) -> Tensor:
    """t per latent frame, zero on motion frames. [B, 1, f, 1, 1]"""
    clean = motion_frame_mask(z.shape[2], motion_frames, z.shape[0]).to(z.device)
    t_BF = t.to(z.dtype)[:, None].expand(-1, z.shape[2]).masked_fill(clean, 0.0)
    return t_BF[:, None, :, None, None]


def add_noise(z0: Tensor, eps: Tensor, t: Tensor, *, motion_frames: Tensor | int = 0) -> Tensor:
    """Eq. 4: z_t = (1 - t) z_0 + t eps; the first ``motion_frames`` latents stay clean."""
    t_ = _per_frame(t, z0, motion_frames)
    return (1 - t_) * z0 + t_ * eps


def velocity(z0: Tensor, eps: Tensor) -> Tensor:
    """Eq. 5: v = eps - z_0."""
    return eps - z0


def predict_z0(z_t: Tensor, v_hat: Tensor, t: Tensor) -> Tensor:
    """Eq. 9: z_0_hat = z_t - t v_hat."""
    return z_t - t.to(z_t.dtype)[:, None, None, None, None] * v_hat
