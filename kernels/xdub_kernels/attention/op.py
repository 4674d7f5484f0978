"""The attention core alone as an operator that autograd and torch.compile support."""

from __future__ import annotations

import torch
from torch import Tensor

from xdub_kernels.attention import cores
from xdub_kernels.fake import attention_like, contiguous_like


@torch.library.custom_op("xdub_kernels::attention", mutates_args=())
def attention_op(q: Tensor, k: Tensor, v: Tensor, core: str, deterministic: bool) -> tuple[Tensor, Tensor]:
    """Return out [B, L, H, D] and its log-sum-exp [B, H, L] fp32."""
    return cores.forward(core, q, k, v)


@attention_op.register_fake
def _(q, *_):
    return attention_like(q)


@torch.library.custom_op("xdub_kernels::attention_backward", mutates_args=())
def attention_backward_op(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, core: str, deterministic: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v in their dtype."""
    dq, dk, dv = cores.backward(core, grad, q, k, v, out, lse, deterministic=deterministic)
    return dq.to(q.dtype), dk, dv


@attention_backward_op.register_fake
def _(grad, q, k, v, *_):
    return tuple(contiguous_like(x) for x in (q, k, v))


def _setup(ctx, inputs, output) -> None:
    q, k, v, *ctx.options = inputs
    out, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(q, k, v, out, lse)


def _backward(ctx, grad: Tensor, _):
    return (*attention_backward_op(grad, *ctx.saved_tensors, *ctx.options), None, None)


attention_op.register_autograd(_backward, setup_context=_setup)
