"""Picture from a single step, through which pixel losses reach the velocity (Eq. 3, 11)."""

from __future__ import annotations

from torch import Tensor

from xdub.diffusion.flow_matching import velocity


def single_step_latents(z0: Tensor, eps: Tensor, v_hat: Tensor, t: Tensor, t_thres: float) -> Tensor:
    """Inside of Eq. 11: z_0 + (v - v_hat) min(t, t_thres), [B, C, f, h, w].

    The clamp bounds how far a bad high-noise guess may move the picture; the network itself always gets the real t.
    """
    step = t.clamp_max(t_thres).to(z0.dtype)[:, None, None, None, None]
    return z0 + (velocity(z0, eps) - v_hat) * step


def single_step_video(
    codec, z0: Tensor, eps: Tensor, v_hat: Tensor, t: Tensor, *, t_thres: float, decode_latents: int
) -> Tensor:
    """Eq. 11: decode the first ``decode_latents`` latents, 4 -> 13 frames, [B, 3, F, H, W] in about [-1, 1].

    A causal codec can only be decoded from a window's first latent, hence the first ones.
    """
    z = single_step_latents(z0, eps, v_hat, t, t_thres)
    return codec.decode(z[:, :, :decode_latents])
