"""Results without values: what the operators tell torch.compile about shapes, dtypes and layout."""

from __future__ import annotations

import torch
from torch import Tensor


def contiguous_like(x: Tensor) -> Tensor:
    """Shape, dtype and device of ``x``; contiguous, whatever the strides of ``x``."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def attention_like(q: Tensor) -> tuple[Tensor, Tensor]:
    """Attention's output [B, L, H, D] and log-sum-exp [B, H, L] fp32 for queries ``q``."""
    batch, length, heads, _ = q.shape
    return contiguous_like(q), torch.empty(batch, heads, length, dtype=torch.float32, device=q.device)
