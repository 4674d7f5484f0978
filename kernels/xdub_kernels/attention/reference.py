"""Softmax attention without a mask: the printed formula, and torch's fused form of it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from xdub_kernels.dispatch import compute_dtype, full_precision

SMALL = 64
"""Number of keys up to which two plain matrix products beat the fused kernel on a CPU, about twofold."""


def attention_math(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v for q, k, v [B, L, H, D], step by step, at least fp32 inside."""
    dtype = compute_dtype(q, k, v)
    with full_precision(q):
        q, k, v = (x.to(dtype).transpose(1, 2) for x in (q, k, v))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return (scores.softmax(dim=-1) @ v).transpose(1, 2)


def attention_fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the same numbers in fp32 (or fp64) by torch's fused kernel, which keeps no L x L matrix for backward."""
    if k.shape[1] <= SMALL:
        return attention_math(q, k, v)
    dtype = compute_dtype(q, k, v)
    with full_precision(q):
        return _sdpa(q.to(dtype), k.to(dtype), v.to(dtype))


def attention_sdpa(q: Tensor, k: Tensor, v: Tensor, kernel: SDPBackend | None = None) -> Tensor:
    """Run ``scaled_dot_product_attention`` in the inputs' own dtype; ``kernel`` forces one of torch's kernels."""
    if kernel is None:
        return _sdpa(q, k, v)
    with sdpa_kernel(kernel):
        return _sdpa(q, k, v)


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)
