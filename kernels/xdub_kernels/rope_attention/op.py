"""``shifted_rope_attention`` as one operator that autograd and torch.compile support.

Backward needs the raw q, k, v, the output and its log-sum-exp. Rotated copies are not kept, because running the
prologue again costs a thousandth of the attention and saves two tensors of q's size in every layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xdub_kernels.attention import cores
from xdub_kernels.fake import attention_like, contiguous_like
from xdub_kernels.qknorm_rope.op import qk_norm_rope_backward_op, qk_norm_rope_op


@torch.library.custom_op("xdub_kernels::shifted_rope_attention", mutates_args=())
def rope_attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    core: str,
    deterministic: bool,
    norm: str,
    eps: float,
    grid: Sequence[int],
    reference_frames: int,
    order: str,
    theta: float,
    axes_dim: Sequence[int] | None,
    share: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Return out [B, L, H, D] and its log-sum-exp [B, H, L] fp32. The last six arguments are `Rope.flat`."""
    prologue = (norm, eps, grid, reference_frames, order, theta, axes_dim, share)
    rotated_q, rotated_k = qk_norm_rope_op(q, k, q_weight, k_weight, *prologue)
    return cores.forward(core, rotated_q, rotated_k, v)


@rope_attention_op.register_fake
def _(q, *_):
    return attention_like(q)


@torch.library.custom_op("xdub_kernels::shifted_rope_attention_backward", mutates_args=())
def rope_attention_backward_op(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    out: Tensor,
    lse: Tensor,
    core: str,
    deterministic: bool,
    norm: str,
    eps: float,
    grid: Sequence[int],
    reference_frames: int,
    order: str,
    theta: float,
    axes_dim: Sequence[int] | None,
    share: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v and of the norm's weights (empty where there is no weight)."""
    prologue = (norm, eps, grid, reference_frames, order, theta, axes_dim, share)
    rotated_q, rotated_k = qk_norm_rope_op(q, k, q_weight, k_weight, *prologue)
    dq, dk, dv = cores.backward(core, grad, rotated_q, rotated_k, v, out, lse, deterministic=deterministic)
    dq, dk, dq_weight, dk_weight = qk_norm_rope_backward_op(dq, dk, q, k, q_weight, k_weight, *prologue)
    return dq, dk, dv, dq_weight, dk_weight


@rope_attention_backward_op.register_fake
def _(grad, q, k, v, q_weight, k_weight, *_):
    weights = (q.new_empty(0) if w is None else torch.empty_like(w) for w in (q_weight, k_weight))
    return (*(contiguous_like(x) for x in (q, k, v)), *weights)


def _setup(ctx, inputs, output) -> None:
    q, k, v, q_weight, k_weight, *ctx.options = inputs
    out, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(q, k, v, q_weight, k_weight, out, lse)


def _backward(ctx, grad: Tensor, _):
    q, k, v, q_weight, k_weight, out, lse = ctx.saved_tensors
    dq, dk, dv, dq_weight, dk_weight = rope_attention_backward_op(
        grad, q, k, v, q_weight, k_weight, out, lse, *ctx.options
    )
    weights = (None if w is None else dw for w, dw in ((q_weight, dq_weight), (k_weight, dk_weight)))
    return (dq, dk, dv, *weights, *[None] * len(ctx.options))


rope_attention_op.register_autograd(_backward, setup_context=_setup)
