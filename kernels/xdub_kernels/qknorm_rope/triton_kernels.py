"""q/k RMSNorm and shifted 3D RoPE, forward and backward, in one pass over memory each.

A program takes a few tokens with all their heads: [tokens, heads, channels]. That is one contiguous piece of memory
(or a few, for slices of a joint qkv projection), serves the norm across heads as well as per head, and reads the
rotation tables once for all heads. Pairs are (2i, 2i + 1): rows are loaded whole, in 16-byte pieces, and split in
registers; strided loads of even and odd channels would be 2 bytes each.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xdub_kernels.qknorm_rope.tables import separable_tables
from xdub_kernels.triton_common import device_context, narrow, padded, processors, rows_last_contiguous

NORMS = {"none": 0, "head": 1, "hidden": 2}
TILE = 8192
"""Elements a program holds at once, at most, unless a single token has more."""
FORWARD_WARPS = BACKWARD_WARPS = 8
PROGRAMS_PER_SM = 4
"""Backward: programs walk over blocks of tokens and add up the weights' gradients in registers."""


@triton.jit
def _angles(COS, SIN, token, L, h, w, n_first, PAIRS: tl.constexpr, PP: tl.constexpr, AXIS_F: tl.constexpr,
            AXIS_H: tl.constexpr, TARGET_FIRST: tl.constexpr):  # fmt: skip
    """cos, sin [T, PP] of tokens [T]. ``n_first``: tokens of the segment that comes first in L."""
    place = token % L
    second = place >= n_first
    index = tl.where(second, place - n_first, place)
    shifted = second if TARGET_FIRST else place < n_first
    shift = shifted.to(tl.int32)
    k = index // (h * w)
    i = (index // w) % h + shift * h
    j = index % w + shift * w
    pair = tl.arange(0, PP)[None, :]
    position = tl.where(pair < AXIS_F, k[:, None], tl.where(pair < AXIS_F + AXIS_H, i[:, None], j[:, None]))
    at = position * PAIRS + pair
    known = (pair < PAIRS) & (position >= 0)
    return tl.load(COS + at, mask=known, other=1.0), tl.load(SIN + at, mask=known, other=0.0)


@triton.jit
def _rms(x, NORM: tl.constexpr, H: tl.constexpr, D: tl.constexpr, eps):
    """1 / sqrt(mean(x^2) + eps) [T, HP or 1, 1] of x [T, HP, DP], padding zero."""
    squares = tl.sum(x * x, axis=2, keep_dims=True)
    if NORM == 2:
        squares = tl.sum(squares, axis=1, keep_dims=True)
        return tl.rsqrt(squares / (H * D) + eps)
    else:
        return tl.rsqrt(squares / D + eps)


@triton.jit
def _weight(W, head, channel, NORM: tl.constexpr, H: tl.constexpr, D: tl.constexpr):
    """[1, 1 or HP, DP] fp32."""
    if NORM == 2:
        inside = (head < H) & (channel < D)
        return tl.load(W + head * D + channel, mask=inside, other=0.0).to(tl.float32)
    else:
        return tl.load(W + channel, mask=channel < D, other=0.0).to(tl.float32)


@triton.jit
def _forward_one(X, W, Y, x_b, x_l, x_h, token, b, place, inside, cos, sin, eps, H: tl.constexpr, D: tl.constexpr,
                 T: tl.constexpr, HP: tl.constexpr, DP: tl.constexpr, NORM: tl.constexpr,
                 WEIGHTED: tl.constexpr):  # fmt: skip
    head = tl.arange(0, HP)[None, :, None]
    channel = tl.arange(0, DP)[None, None, :]
    mask = inside & (head < H) & (channel < D)
    x = tl.load(X + b * x_b + place * x_l + head * x_h + channel, mask=mask, other=0.0).to(tl.float32)
    if NORM != 0:
        x = x * _rms(x, NORM, H, D, eps)
        if WEIGHTED:
            x = x * _weight(W, head, channel, NORM, H, D)
    x0, x1 = tl.split(tl.reshape(x, (T, HP, DP // 2, 2)))
    y = tl.join(x0 * cos - x1 * sin, x1 * cos + x0 * sin)
    y = tl.reshape(y, (T, HP, DP))
    tl.store(Y + token * (H * D) + head * D + channel, narrow(y, Y.dtype.element_ty), mask=mask)


@triton.jit
def qk_norm_rope_fwd(
    Q, K, QW, KW, YQ, YK, COS, SIN,
    q_b, q_l, q_h, k_b, k_l, k_h,
    tokens, L, h, w, n_first, eps,
    H: tl.constexpr, D: tl.constexpr, T: tl.constexpr, HP: tl.constexpr, DP: tl.constexpr,
    AXIS_F: tl.constexpr, AXIS_H: tl.constexpr, TARGET_FIRST: tl.constexpr,
    NORM: tl.constexpr, Q_WEIGHTED: tl.constexpr, K_WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of T tokens, 2): q and k, strided [B, L, H, D], to contiguous YQ and YK."""
    flat = tl.program_id(0) * T + tl.arange(0, T)
    cos, sin = _angles(COS, SIN, flat, L, h, w, n_first, D // 2, DP // 2, AXIS_F, AXIS_H, TARGET_FIRST)
    cos, sin = cos[:, None, :], sin[:, None, :]
    token = flat.to(tl.int64)[:, None, None]
    inside = token < tokens
    b, place = token // L, token % L
    if tl.program_id(1) == 0:
        _forward_one(Q, QW, YQ, q_b, q_l, q_h, token, b, place, inside, cos, sin, eps, H, D, T, HP, DP, NORM,
                     Q_WEIGHTED)  # fmt: skip
    else:
        _forward_one(K, KW, YK, k_b, k_l, k_h, token, b, place, inside, cos, sin, eps, H, D, T, HP, DP, NORM,
                     K_WEIGHTED)  # fmt: skip


@triton.jit
def qk_norm_rope_bwd(
    X, W, DY, DX, DW, COS, SIN,
    x_b, x_l, x_h,
    tokens, L, h, w, n_first, eps,
    H: tl.constexpr, D: tl.constexpr, T: tl.constexpr, HP: tl.constexpr, DP: tl.constexpr,
    AXIS_F: tl.constexpr, AXIS_H: tl.constexpr, TARGET_FIRST: tl.constexpr,
    NORM: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Grid (programs,), for one of q and k: DY [B, L, H, D] is turned back and taken through the norm.

    Every program walks over blocks of T tokens; DW [programs, HP, DP] fp32 gets its sum over them.
    """
    head = tl.arange(0, HP)[None, :, None]
    channel = tl.arange(0, DP)[None, None, :]
    if WEIGHTED:
        weight = _weight(W, head, channel, NORM, H, D)
        total = tl.zeros((HP, DP), tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(tokens, T), tl.num_programs(0)):
        flat = block * T + tl.arange(0, T)
        cos, sin = _angles(COS, SIN, flat, L, h, w, n_first, D // 2, DP // 2, AXIS_F, AXIS_H, TARGET_FIRST)
        cos, sin = cos[:, None, :], sin[:, None, :]
        token = flat.to(tl.int64)[:, None, None]
        mask = (token < tokens) & (head < H) & (channel < D)
        at = token * (H * D) + head * D + channel
        dy = tl.load(DY + at, mask=mask, other=0.0).to(tl.float32)
        dy0, dy1 = tl.split(tl.reshape(dy, (T, HP, DP // 2, 2)))
        dx = tl.reshape(tl.join(dy0 * cos + dy1 * sin, dy1 * cos - dy0 * sin), (T, HP, DP))
        if NORM != 0:
            b, place = token // L, token % L
            x = tl.load(X + b * x_b + place * x_l + head * x_h + channel, mask=mask, other=0.0)
            x = x.to(tl.float32)
            rms = _rms(x, NORM, H, D, eps)
            normed = x * rms
            if WEIGHTED:
                total += tl.sum(dx * normed, axis=0)
                dx = dx * weight
            inner = tl.sum(dx * normed, axis=2, keep_dims=True)
            if NORM == 2:
                inner = tl.sum(inner, axis=1, keep_dims=True) / (H * D)
            else:
                inner = inner / D
            dx = rms * (dx - normed * inner)
        tl.store(DX + at, narrow(dx, DX.dtype.element_ty), mask=mask)
    if WEIGHTED:
        rows, columns = tl.arange(0, HP)[:, None], tl.arange(0, DP)[None, :]
        tl.store(DW + (tl.program_id(0) * HP + rows) * DP + columns, total)


def tile(heads: int, dim: int) -> dict[str, int]:
    """Tokens a program takes at once and the padded sizes."""
    hp, dp = padded(heads, 1), padded(dim)
    return {"T": max(1, min(16, TILE // (hp * dp))), "HP": hp, "DP": dp}


def layout(
    grid: tuple[int, int, int], reference_frames: int, order: str, axes_dim: tuple[int, int, int]
) -> tuple[tuple[int, int, int], dict[str, object]]:
    """((h, w, tokens of the first segment), constants) that turn a token's number into its place."""
    frames, height, width = grid
    target_first = order == "target_first"
    first = (frames if target_first else reference_frames) * height * width
    constants = {"AXIS_F": axes_dim[0] // 2, "AXIS_H": axes_dim[1] // 2, "TARGET_FIRST": target_first}
    return (height, width, first), constants


def forward(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    *,
    grid: tuple[int, int, int],
    reference_frames: int,
    order: str,
    norm: str,
    eps: float,
    theta: float,
    axes_dim: tuple[int, int, int],
) -> tuple[Tensor, Tensor]:
    """Normed and rotated q and k, contiguous [B, L, H, D] in their dtype."""
    q, k = rows_last_contiguous(q), rows_last_contiguous(k)
    q_weight, k_weight = (None if w is None else w.contiguous() for w in (q_weight, k_weight))
    batch, length, heads, dim = q.shape
    out_q, out_k = (torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(2))
    if q.numel() == 0:
        return out_q, out_k
    cos, sin = separable_tables(grid, reference_frames, axes_dim, theta, q.device)
    where, constants = layout(grid, reference_frames, order, axes_dim)
    sizes = tile(heads, dim)
    with device_context(q):
        qk_norm_rope_fwd[(triton.cdiv(batch * length, sizes["T"]), 2)](
            q, k, q_weight, k_weight, out_q, out_k, cos, sin,
            *q.stride()[:3], *k.stride()[:3],
            batch * length, length, *where, eps,
            H=heads, D=dim, **sizes, **constants, NORM=NORMS[norm],
            Q_WEIGHTED=q_weight is not None, K_WEIGHTED=k_weight is not None,
            num_warps=FORWARD_WARPS,
        )  # fmt: skip
    return out_q, out_k


def backward_one(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    *,
    grid: tuple[int, int, int],
    reference_frames: int,
    order: str,
    norm: str,
    eps: float,
    theta: float,
    axes_dim: tuple[int, int, int],
) -> tuple[Tensor, Tensor | None]:
    """Gradients of x [B, L, H, D] and of its weight, from that of the rotated x (any dtype)."""
    x, grad = rows_last_contiguous(x), grad.contiguous()
    weight = None if weight is None else weight.contiguous()
    batch, length, heads, dim = x.shape
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return dx, None if weight is None else torch.zeros_like(weight)
    cos, sin = separable_tables(grid, reference_frames, axes_dim, theta, x.device)
    where, constants = layout(grid, reference_frames, order, axes_dim)
    sizes = tile(heads, dim)
    programs = min(triton.cdiv(batch * length, sizes["T"]), PROGRAMS_PER_SM * processors(x))
    partial = None
    if weight is not None:
        partial = torch.empty(programs, sizes["HP"], sizes["DP"], dtype=torch.float32, device=x.device)
    with device_context(x):
        qk_norm_rope_bwd[(programs,)](
            x, weight, grad, dx, partial, cos, sin, *x.stride()[:3],
            batch * length, length, *where, eps,
            H=heads, D=dim, **sizes, **constants, NORM=NORMS[norm], WEIGHTED=weight is not None,
            num_warps=BACKWARD_WARPS,
        )  # fmt: skip
    if weight is None:
        return dx, None
    summed = partial.sum(0)[:heads, :dim]
    summed = summed.sum(0) if norm == "head" else summed.flatten()
    return dx, summed.to(weight.dtype)
