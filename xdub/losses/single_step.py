"""Picture from a single step, through which pixel losses reach the velocity (Eq. 3, 11)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from xdub.diffusion.flow_matching import velocity


class Decodes(Protocol):
    """The part of a codec that pixel losses need."""

    def decode(self, z: Tensor) -> Tensor:
        """Return the video [B, 3, F, H, W] of z [B, C, f, h, w], differentiable."""


def single_step_latents(z0: Tensor, eps: Tensor, v_hat: Tensor, t: Tensor, t_thres: float) -> Tensor:
    """Return the latents inside Eq. 11: z_0 + (v - v_hat) min(t, t_thres), [B, C, f, h, w].

    The clamp bounds how far a bad guess at high noise moves the picture; the network itself always reads the real t.
    """
    step = t.clamp_max(t_thres).to(z0.dtype)[:, None, None, None, None]
    return z0 + (velocity(z0, eps) - v_hat) * step


def single_step_video(
    codec: Decodes, z0: Tensor, eps: Tensor, v_hat: Tensor, t: Tensor, *, t_thres: float, decode_latents: int
) -> Tensor:
    """Decode the first ``decode_latents`` latents to a video [B, 3, F, H, W] in about [-1, 1] (Eq. 11).

    Four latents are 13 frames. A causal codec can only be decoded from a window's first latent on.
    """
    z = single_step_latents(z0, eps, v_hat, t, t_thres)
    return codec.decode(z[:, :, :decode_latents])
