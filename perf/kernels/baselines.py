"""Competitors of the kernels: the code that is commonly run today, written in its usual form."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from xdub_kernels import Rope
from xdub_kernels.qknorm_rope.reference import cached_rope_tables, rms_norm, rotation_angles

KERNELS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
"""torch's attention kernels by name."""


@lru_cache(maxsize=16)
def compiled(function: Callable) -> Callable:
    """Compile ``function`` for fixed shapes, on first use, because importing the compiler takes seconds."""
    return torch.compile(function, dynamic=False)


def sdpa(q: Tensor, k: Tensor, v: Tensor, kernel: str | None = None) -> Tensor:
    """Run torch's attention on [B, L, H, D]; ``kernel``: "flash" or "cudnn", None: torch's own choice."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if kernel is None:
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    with sdpa_kernel(KERNELS[kernel]):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


@lru_cache(maxsize=4)
def complex_table(rope: Rope, dim: int, device: torch.device) -> Tensor:
    """Return the rotation of every token as complex numbers, [L, 1, D/2] complex128."""
    angles = rotation_angles(rope, dim)
    return torch.polar(torch.ones_like(angles), angles)[:, None].to(device)


def eager_prologue(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Rope, norm: str
) -> tuple[Tensor, Tensor]:
    """Norm and rotate as released code does: fp32 RMSNorm, then complex products in float64 with a table by token."""
    table = complex_table(rope, q.shape[-1], q.device)

    def one(x: Tensor, weight: Tensor) -> Tensor:
        normed = rms_norm(x.float(), weight, norm, 1e-6).to(x.dtype)
        pairs = torch.view_as_complex(normed.double().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * table).flatten(-2).to(x.dtype)

    return one(q, q_weight), one(k, k_weight)


def plain_prologue(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, norm: str
):
    """Norm and rotate in fp32, in the form that torch.compile fuses best."""

    def one(x: Tensor, weight: Tensor) -> Tensor:
        x0, x1 = rms_norm(x.float(), weight, norm, 1e-6).unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([x0 * cos - x1 * sin, x1 * cos + x0 * sin], -1).flatten(-2).to(x.dtype)

    return one(q, q_weight), one(k, k_weight)


def compiled_tables_prologue(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Rope, norm: str
) -> tuple[Tensor, Tensor]:
    """Run `plain_prologue` compiled; the tables are computed once and passed in."""
    cos, sin = cached_rope_tables(rope, q.shape[-1], torch.float32, q.device)
    return compiled(plain_prologue)(q, k, q_weight, k_weight, cos, sin, norm)


def flex(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Run FlexAttention without a score function on [B, L, H, D]."""
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return compiled(flex_attention)(q, k, v).transpose(1, 2)


def eager_loss(v_hat, z0, eps, face_mask, lip_mask, motion: int) -> Tensor:
    """Compute the flow loss operator by operator, in fp32."""
    keep = slice(motion, None)
    v_hat, z0, eps, face, lip = (x[:, :, keep].float() for x in (v_hat, z0, eps, face_mask, lip_mask))
    weight = 1 + 0.3 * face + 0.3 * lip
    return (weight * (v_hat - (eps - z0)).square()).mean()


def compiled_loss(*args) -> Tensor:
    """Run `eager_loss` compiled."""
    return compiled(eager_loss)(*args)


def gather_audio(q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> Tensor:
    """Gather windows to memory, then run SDPA over frames folded into the batch; windows lie inside 0..T-1."""
    batch, frames, tokens, heads, dim = q.shape
    index = starts[:, None] + torch.arange(16, device=q.device)
    k, v = (x[:, index].flatten(0, 1).transpose(1, 2) for x in (k, v))
    out = F.scaled_dot_product_attention(q.flatten(0, 1).transpose(1, 2), k, v)
    return out.transpose(1, 2).reshape(batch, frames, tokens, heads, dim)


def compiled_gather_audio(*args) -> Tensor:
    """Run `gather_audio` compiled."""
    return compiled(gather_audio)(*args)
