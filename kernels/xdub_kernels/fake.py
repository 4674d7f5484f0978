"""Results without values: shapes, dtypes and layouts of the operators' outputs for torch.compile."""

from __future__ import annotations

import torch
from torch import Tensor


def contiguous_like(x: Tensor) -> Tensor:
    """Return a contiguous tensor with the shape, dtype and device of ``x``."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def attention_like(q: Tensor) -> tuple[Tensor, Tensor]:
    """Return attention's output [B, L, H, D] and log-sum-exp [B, H, L] fp32 for queries ``q``."""
    batch, length, heads, _ = q.shape
    return contiguous_like(q), torch.empty(batch, heads, length, dtype=torch.float32, device=q.device)
