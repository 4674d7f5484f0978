"""``qk_norm_rope`` as one operator that autograd and torch.compile support; the kernels are imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xdub_kernels.fake import contiguous_like
from xdub_kernels.rope import Rope


@torch.library.custom_op("xdub_kernels::qk_norm_rope", mutates_args=())
def qk_norm_rope_op(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    norm: str,
    eps: float,
    grid: Sequence[int],
    reference_frames: int,
    order: str,
    theta: float,
    axes_dim: Sequence[int] | None,
    share: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Return normed and rotated q and k, contiguous [B, L, H, D]. The last six arguments are `Rope.flat`."""
    from xdub_kernels.qknorm_rope import triton_kernels

    rope = Rope.unflatten(grid, reference_frames, order, theta, axes_dim, share)
    return triton_kernels.forward(q, k, q_weight, k_weight, rope, norm=norm, eps=eps)


@qk_norm_rope_op.register_fake
def _(q, k, *_):
    return contiguous_like(q), contiguous_like(k)


@torch.library.custom_op("xdub_kernels::qk_norm_rope_backward", mutates_args=())
def qk_norm_rope_backward_op(
    grad_q: Tensor,
    grad_k: Tensor,
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    norm: str,
    eps: float,
    grid: Sequence[int],
    reference_frames: int,
    order: str,
    theta: float,
    axes_dim: Sequence[int] | None,
    share: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and of their weights (empty where there is no weight)."""
    from xdub_kernels.qknorm_rope import triton_kernels

    rope = Rope.unflatten(grid, reference_frames, order, theta, axes_dim, share)
    dq, dq_weight = triton_kernels.backward_one(grad_q, q, q_weight, rope, norm=norm, eps=eps)
    dk, dk_weight = triton_kernels.backward_one(grad_k, k, k_weight, rope, norm=norm, eps=eps)
    return dq, dk, _or_empty(dq_weight, q), _or_empty(dk_weight, k)


@qk_norm_rope_backward_op.register_fake
def _(grad_q, grad_k, q, k, q_weight, k_weight, *_):
    weights = (q.new_empty(0) if w is None else torch.empty_like(w) for w in (q_weight, k_weight))
    return (contiguous_like(q), contiguous_like(k), *weights)


def _setup(ctx, inputs, output) -> None:
    q, k, q_weight, k_weight, *ctx.options = inputs
    ctx.save_for_backward(q, k, q_weight, k_weight)


def _backward(ctx, grad_q: Tensor, grad_k: Tensor):
    q, k, q_weight, k_weight = ctx.saved_tensors
    dq, dk, dq_weight, dk_weight = qk_norm_rope_backward_op(
        grad_q, grad_k, q, k, q_weight, k_weight, *ctx.options
    )
    weights = (None if w is None else dw for w, dw in ((q_weight, dq_weight), (k_weight, dk_weight)))
    return (dq, dk, *weights, *[None] * len(ctx.options))


qk_norm_rope_op.register_autograd(_backward, setup_context=_setup)


def _or_empty(x: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if x is None else x
