"""Euler integration of dz/dt = v from noise (t = 1) to data (t = 0)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xdub.diffusion.timesteps import shift_timesteps

ModelFn = Callable[[Tensor, Tensor], Tensor]
"""(z_t [B, C, f, h, w], t [B]) -> v_hat [B, C, f, h, w]"""


def euler_timesteps(num_steps: int, shift: float = 1.0) -> Tensor:
    """num_steps + 1 times from 1 to 0; ``shift`` > 1 spends more steps at high noise (Eq. 2)."""
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps}: at least one step is needed")
    return shift_timesteps(torch.linspace(1, 0, num_steps + 1), shift)


def sample(
    model_fn: ModelFn,
    noise: Tensor,
    *,
    num_steps: int,
    shift: float = 1.0,
    z_motion: Tensor | None = None,
    on_step: Callable[[float], None] | None = None,
) -> Tensor:
    """Turn ``noise`` [B, C, f, h, w] into z_0.

    ``z_motion`` [B, C, m, h, w] are clean motion latents: they replace the first m frames before every step and in
    the result. ``on_step(t)`` is called before each evaluation with the current t (expert switching, progress).
    """
    z = noise.clone()
    times = euler_timesteps(num_steps, shift).tolist()
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        if z_motion is not None:
            z[:, :, : z_motion.shape[2]] = z_motion
        if on_step is not None:
            on_step(t)
        v_hat = model_fn(z, torch.full((z.shape[0],), t, device=z.device))
        z = z + (t_next - t) * v_hat.to(z.dtype)
    if z_motion is not None:
        z[:, :, : z_motion.shape[2]] = z_motion
    return z
