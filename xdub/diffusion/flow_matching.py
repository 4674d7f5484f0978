"""Straight path between data and noise (Eq. 4, 5, 9, 10). All latents [B, C, f, h, w], t [B] in [0, 1]."""

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


def add_noise(z0: Tensor, eps: Tensor, t: Tensor, *, motion_frames: Tensor | int = 0) -> Tensor:
    """Return z_t = (1 - t) z_0 + t eps (Eq. 4); the first ``motion_frames`` latents stay clean."""
    clean = motion_frame_mask(z0.shape[2], motion_frames, z0.shape[0]).to(z0.device)
    times = frame_times(t.to(z0.dtype), clean)[:, None, :, None, None]
    return (1 - times) * z0 + times * eps


def velocity(z0: Tensor, eps: Tensor) -> Tensor:
    """Return v = eps - z_0 (Eq. 5)."""
    return eps - z0
