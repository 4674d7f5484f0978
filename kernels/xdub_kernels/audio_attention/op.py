"""``frame_audio_attention`` as one operator that autograd and torch.compile support."""

from __future__ import annotations

import torch
from torch import Tensor

from xdub_kernels.fake import contiguous_like


@torch.library.custom_op("xdub_kernels::frame_audio_attention", mutates_args=())
def audio_attention_op(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, window: int, enabled: Tensor | None
) -> Tensor:
    """Return [B, F, N, H, D] for starts int64 [B, F]."""
    from xdub_kernels.audio_attention import triton_kernels

    return triton_kernels.forward(q, k, v, starts, window, enabled)


@audio_attention_op.register_fake
def _(q, *_):
    return contiguous_like(q)


@torch.library.custom_op("xdub_kernels::frame_audio_attention_backward", mutates_args=())
def audio_attention_backward_op(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, window: int, enabled: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v."""
    from xdub_kernels.audio_attention import triton_kernels

    return triton_kernels.backward(grad, q, k, v, starts, window, enabled)


@audio_attention_backward_op.register_fake
def _(grad, q, k, v, *_):
    return contiguous_like(q), contiguous_like(k), contiguous_like(v)


def _setup(ctx, inputs, output) -> None:
    q, k, v, starts, ctx.window, enabled = inputs
    ctx.save_for_backward(q, k, v, starts, enabled)


def _backward(ctx, grad: Tensor):
    q, k, v, starts, enabled = ctx.saved_tensors
    return (*audio_attention_backward_op(grad, q, k, v, starts, ctx.window, enabled), None, None, None)


audio_attention_op.register_autograd(_backward, setup_context=_setup)
