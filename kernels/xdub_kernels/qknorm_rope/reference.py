"""RMSNorm of queries and keys, then shifted 3D rotary embedding: plain torch, checkable by eye."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from xdub_kernels.dispatch import compute_dtype, full_precision
from xdub_kernels.rope import Rope


def token_positions(rope: Rope) -> Tensor:
    """Return (frame, row, column) of every token in L, [L, 3] float64 (paper B.4).

    A target token sits at (k, i, j); a reference token at (k, i + h, j + w): beside the target in space, not
    after it in time. A single reference frame is anchored at k = 0 (B.3).
    """
    _, height, width = rope.grid
    target = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in rope.grid))
    within = torch.arange(rope.offset, rope.offset + rope.per_frame).clamp_max(height * width - 1)
    target = target.unflatten(0, (-1, height * width))[:, within].flatten(0, 1)
    reference = target[: rope.reference_frames * rope.per_frame] + target.new_tensor([0, height, width])
    parts = [target, reference] if rope.order == "target_first" else [reference, target]
    return torch.cat(parts)


def rotation_angles(rope: Rope, head_dim: int) -> Tensor:
    """Return the angle of every token and pair, [L, D/2] float64: position * theta^(-2 i / axis_dim), axis by axis."""
    positions, per_axis = token_positions(rope), []
    for axis, dim in enumerate(rope.axes(head_dim)):
        frequency = rope.theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / max(dim, 1))
        per_axis.append(torch.outer(positions[:, axis], frequency))
    return torch.cat(per_axis, dim=1)


def rope_tables(rope: Rope, head_dim: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cos and sin of every token and pair, [L, 1, D/2] each; angles in float64 on the host, rounded once."""
    # The cache outlives its first caller: a table first built under inference_mode could never be saved for
    # backward.
    with torch.inference_mode(False), torch.no_grad():
        angles = rotation_angles(rope, head_dim)
        return angles.cos()[:, None].to(device, dtype), angles.sin()[:, None].to(device, dtype)


cached_rope_tables = lru_cache(maxsize=64)(rope_tables)
"""`rope_tables` that keeps its last 64 results."""


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the interleaved pairs (0, 1), (2, 3), ... of x [B, L, H, D]: (x0 cos - x1 sin, x1 cos + x0 sin).

    On the CPU the pair is a complex number, which torch multiplies several times faster than strided halves;
    a compiler fuses the real form instead.
    """
    pairs = x.unflatten(-1, (-1, 2))
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        turned = torch.view_as_complex(pairs.contiguous()) * torch.complex(cos, sin)
        return torch.view_as_real(turned).flatten(-2)
    x0, x1 = pairs.unbind(-1)
    return torch.stack([x0 * cos - x1 * sin, x1 * cos + x0 * sin], dim=-1).flatten(-2)


def rms_norm(x: Tensor, weight: Tensor | None, norm: str, eps: float) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight, over D ("head") or over H*D ("hidden"); x [B, L, H, D]."""
    if norm == "none":
        return x
    dims = (-1,) if norm == "head" else (-2, -1)
    x = x * torch.rsqrt(x.square().mean(dims, keepdim=True) + eps)
    if weight is None:
        return x
    return x * weight.to(x.dtype).view(x.shape[-1:] if norm == "head" else x.shape[-2:])


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    rope: Rope,
    *,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    norm: str,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return normed and rotated q and k in the compute dtype (at least fp32), [B, L, H, D] each."""
    dtype = compute_dtype(q)
    with full_precision(q):
        # A compiler traces the tables into its graph; a cache filled by tracing would hold its placeholders.
        tables = rope_tables if torch.compiler.is_compiling() else cached_rope_tables
        cos, sin = tables(rope, q.shape[-1], dtype, q.device)
        q = rotate(rms_norm(q.to(dtype), q_weight, norm, eps), cos, sin)
        k = rotate(rms_norm(k.to(dtype), k_weight, norm, eps), cos, sin)
    return q, k
