"""Noising and the masked flow-matching loss (paper Eq. 1, 4, 5, 13): plain torch, checkable by eye."""

from __future__ import annotations

import torch
from torch import Tensor

from xdub_kernels.dispatch import compute_dtype, full_precision


def counted_frames(motion_frames: Tensor, frames: int) -> Tensor:
    """Return [B, 1, f, 1, 1] bool, True for the frames behind each sample's motion frames (int64 [B])."""
    index = torch.arange(frames, device=motion_frames.device)
    return (index >= motion_frames[:, None])[:, None, :, None, None]


def add_noise(z0: Tensor, eps: Tensor, t: Tensor, motion_frames: Tensor) -> Tensor:
    """Return z_t = (1 - t) z_0 + t eps (Eq. 4); motion frames stay clean, as their t is 0."""
    dtype = compute_dtype(z0)
    with full_precision(z0):
        t = t.to(dtype)[:, None, None, None, None]
        noisy = (1 - t) * z0.to(dtype) + t * eps.to(dtype)
        return torch.where(counted_frames(motion_frames, z0.shape[2]), noisy.to(z0.dtype), z0)


def weighted_flow_loss(
    v_hat: Tensor,
    z0: Tensor,
    eps: Tensor,
    face_mask: Tensor,
    lip_mask: Tensor,
    *,
    face_weight: float,
    lip_weight: float,
    motion_frames: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, and per sample the weighted sum [B] and the number of counted elements [B].

    loss = mean over samples of sum (1 + face_weight M + lip_weight M_lip) (v_hat - (eps - z_0))^2 / number, over a
    sample's elements behind its motion frames (Eq. 1, 13). A sample without such elements has the loss 0.
    """
    dtype = compute_dtype(v_hat)
    with full_precision(v_hat):
        velocity = eps.to(dtype) - z0.to(dtype)
        weight = 1 + face_weight * face_mask.to(dtype) + lip_weight * lip_mask.to(dtype)
        counts = counted_frames(motion_frames, v_hat.shape[2])
        weighted = weight * (v_hat.to(dtype) - velocity).square()
        sums = torch.where(counts, weighted, 0.0).flatten(1).sum(1)
        per_frame = v_hat.shape[1] * v_hat.shape[3] * v_hat.shape[4]
        numbers = counts.flatten(1).sum(1) * per_frame
        means = sums / numbers.clamp(min=1).to(dtype)
        return means.sum() / max(len(means), 1), sums, numbers
