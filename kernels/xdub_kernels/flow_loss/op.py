"""``weighted_flow_loss`` and ``add_noise`` as operators that autograd and torch.compile support."""

from __future__ import annotations

import torch
from torch import Tensor

from xdub_kernels.fake import contiguous_like
from xdub_kernels.flow_loss.reference import counted_frames


@torch.library.custom_op("xdub_kernels::flow_loss", mutates_args=())
def flow_loss_op(
    v_hat: Tensor,
    z0: Tensor,
    eps: Tensor,
    face_mask: Tensor,
    lip_mask: Tensor,
    motion_frames: Tensor,
    face_weight: float,
    lip_weight: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the loss [], sums [B], numbers [B], and for backward weight x difference with its factor [B]."""
    from xdub_kernels.flow_loss import triton_kernels

    return triton_kernels.flow_loss(
        v_hat, z0, eps, face_mask, lip_mask, motion_frames, face_weight, lip_weight
    )


@flow_loss_op.register_fake
def _(v_hat, *_):
    batch, device = v_hat.shape[0], v_hat.device
    return (
        torch.empty((), dtype=torch.float32, device=device),
        torch.empty(batch, dtype=torch.float32, device=device),
        torch.empty(batch, dtype=torch.int64, device=device),
        contiguous_like(v_hat),
        torch.empty(batch, dtype=torch.float32, device=device),
    )


def _setup_loss(ctx, inputs, output) -> None:
    _, sums, numbers, weighted, per_element = output
    ctx.mark_non_differentiable(sums, numbers, weighted, per_element)
    # Zeros for the four outputs that have no gradient would cost a pass over memory.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(weighted, per_element)
    ctx.dtypes = [x.dtype for x in inputs[:3]]


def _backward_loss(ctx, grad: Tensor | None, *_):
    if grad is None:
        return (None,) * 8
    weighted, per_element = ctx.saved_tensors
    scaled = weighted * (grad.to(torch.float32) * per_element)[:, None, None, None, None]
    # v_hat - (eps - z0) is squared, so z0 has v_hat's gradient and eps its negative.
    signs = (1, 1, -1)
    gradients = [
        (scaled if sign > 0 else -scaled).to(dtype) if is_needed else None
        for sign, dtype, is_needed in zip(signs, ctx.dtypes, ctx.needs_input_grad, strict=False)
    ]
    return (*gradients, None, None, None, None, None)


flow_loss_op.register_autograd(_backward_loss, setup_context=_setup_loss)


@torch.library.custom_op("xdub_kernels::add_noise", mutates_args=())
def add_noise_op(z0: Tensor, eps: Tensor, t: Tensor, motion_frames: Tensor) -> Tensor:
    """Return z_t [B, C, f, h, w]."""
    from xdub_kernels.flow_loss import triton_kernels

    return triton_kernels.add_noise(z0, eps, t, motion_frames)


@add_noise_op.register_fake
def _(z0, eps, t, motion_frames):
    return contiguous_like(z0)


def _setup_noise(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward_noise(ctx, grad: Tensor):
    z0, eps, t, motion_frames = ctx.saved_tensors
    noisy = counted_frames(motion_frames, z0.shape[2])
    part = torch.where(noisy, t[:, None, None, None, None].float(), 0.0)
    wide = grad.float()
    dz0, deps, dt = ctx.needs_input_grad[:3]
    along = torch.where(noisy, wide * (eps.float() - z0.float()), 0.0)
    return (
        (wide * (1 - part)).to(z0.dtype) if dz0 else None,
        (wide * part).to(eps.dtype) if deps else None,
        along.flatten(1).sum(1).to(t.dtype) if dt else None,
        None,
    )


add_noise_op.register_autograd(_backward_noise, setup_context=_setup_noise)
