"""q/k RMSNorm and shifted 3D RoPE, forward and backward, in one pass over memory each.

A program processes a few tokens with all their heads: [tokens, heads, channels]. Such a block is one contiguous piece
of memory (or a few, for slices of a joint qkv projection), serves the norm across heads as well as per head, and reads
the rotation tables once for all heads. Pairs are (2i, 2i + 1): rows are loaded whole, in 16-byte pieces, and split in
registers; strided loads of even and odd channels would be 2 bytes each.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xdub_kernels.qknorm_rope.tables import separable_tables
from xdub_kernels.rope import Rope
from xdub_kernels.triton_common import (
    device_context,
    narrow,
    padded,
    processors,
    rows_last_contiguous,
    strides,
)

NORMS = {"none": 0, "head": 1, "hidden": 2}
"""Codes of the norms inside the kernels."""
TILE = 8192
"""Largest number of elements a program holds at once, unless a single token has more."""
FORWARD_WARPS = BACKWARD_WARPS = 8
PROGRAMS_PER_SM = 4
"""Programs of backward for each multiprocessor: they walk over blocks of tokens and sum the weights' gradients."""


@triton.jit
def _angles(COS, SIN, o_token, L, h, w, n_first, per_frame, offset, PAIRS: tl.constexpr, PP: tl.constexpr,
            AXIS_F: tl.constexpr, AXIS_H: tl.constexpr, TARGET_FIRST: tl.constexpr):  # fmt: skip
    """Load cos, sin [T, PP] of tokens [T]. ``n_first``: number of tokens in the segment that comes first in L.

    L holds ``per_frame`` tokens of each frame, from the frame's token ``offset`` on (`Rope.share`).
    """
    o_l = o_token % L
    m_second = o_l >= n_first
    o_segment = tl.where(m_second, o_l - n_first, o_l)
    m_shifted = m_second if TARGET_FIRST else o_l < n_first
    shift = m_shifted.to(tl.int32)
    frame = o_segment // per_frame
    within = tl.minimum(o_segment % per_frame + offset, h * w - 1)
    row = within // w + shift * h
    column = within % w + shift * w
    o_pair = tl.arange(0, PP)[None, :]
    position = tl.where(
        o_pair < AXIS_F, frame[:, None], tl.where(o_pair < AXIS_F + AXIS_H, row[:, None], column[:, None])
    )
    o_table = position * PAIRS + o_pair
    m_table = (o_pair < PAIRS) & (position >= 0)
    return tl.load(COS + o_table, mask=m_table, other=1.0), tl.load(SIN + o_table, mask=m_table, other=0.0)


@triton.jit
def _rms(x, NORM: tl.constexpr, H: tl.constexpr, D: tl.constexpr, eps):
    """Return 1 / sqrt(mean(x^2) + eps) [T, HP or 1, 1] of x [T, HP, DP], whose padding is zero."""
    squares = tl.sum(x * x, axis=2, keep_dims=True)
    if NORM == 2:
        squares = tl.sum(squares, axis=1, keep_dims=True)
        return tl.rsqrt(squares / (H * D) + eps)
    else:
        return tl.rsqrt(squares / D + eps)


@triton.jit
def _weight(W, o_h, o_d, NORM: tl.constexpr, H: tl.constexpr, D: tl.constexpr):
    """Load the norm's weight in fp32: [1, 1 or HP, DP]."""
    if NORM == 2:
        m_weight = (o_h < H) & (o_d < D)
        return tl.load(W + o_h * D + o_d, mask=m_weight, other=0.0).to(tl.float32)
    else:
        return tl.load(W + o_d, mask=o_d < D, other=0.0).to(tl.float32)


@triton.jit
def _forward_one(X, W, Y, x_b, x_l, x_h, o_token, o_b, o_l, m_token, cos, sin, eps, H: tl.constexpr,
                 D: tl.constexpr, T: tl.constexpr, HP: tl.constexpr, DP: tl.constexpr, NORM: tl.constexpr,
                 WEIGHTED: tl.constexpr):  # fmt: skip
    """Norm and rotate the tokens ``o_token`` of X, and write them to the contiguous Y."""
    o_h = tl.arange(0, HP)[None, :, None]
    o_d = tl.arange(0, DP)[None, None, :]
    m_x = m_token & (o_h < H) & (o_d < D)
    x = tl.load(X + o_b * x_b + o_l * x_l + o_h * x_h + o_d, mask=m_x, other=0.0).to(tl.float32)
    if NORM != 0:
        x = x * _rms(x, NORM, H, D, eps)
        if WEIGHTED:
            x = x * _weight(W, o_h, o_d, NORM, H, D)
    x0, x1 = tl.split(tl.reshape(x, (T, HP, DP // 2, 2)))
    y = tl.join(x0 * cos - x1 * sin, x1 * cos + x0 * sin)
    y = tl.reshape(y, (T, HP, DP))
    tl.store(Y + o_token * (H * D) + o_h * D + o_d, narrow(y, Y.dtype.element_ty), mask=m_x)


@triton.jit
def qk_norm_rope_fwd(
    Q, K, QW, KW, YQ, YK, COS, SIN,
    q_b, q_l, q_h, k_b, k_l, k_h,
    tokens, L, h, w, n_first, per_frame, offset, eps,
    H: tl.constexpr, D: tl.constexpr, T: tl.constexpr, HP: tl.constexpr, DP: tl.constexpr,
    AXIS_F: tl.constexpr, AXIS_H: tl.constexpr, TARGET_FIRST: tl.constexpr,
    NORM: tl.constexpr, Q_WEIGHTED: tl.constexpr, K_WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of T tokens, 2): norm and rotate q and k, strided [B, L, H, D], to contiguous YQ and YK."""
    flat = tl.program_id(0) * T + tl.arange(0, T)
    cos, sin = _angles(COS, SIN, flat, L, h, w, n_first, per_frame, offset, D // 2, DP // 2, AXIS_F, AXIS_H,
                       TARGET_FIRST)  # fmt: skip
    cos, sin = cos[:, None, :], sin[:, None, :]
    o_token = flat.to(tl.int64)[:, None, None]
    m_token = o_token < tokens
    o_b, o_l = o_token // L, o_token % L
    if tl.program_id(1) == 0:
        _forward_one(Q, QW, YQ, q_b, q_l, q_h, o_token, o_b, o_l, m_token, cos, sin, eps, H, D, T, HP, DP, NORM,
                     Q_WEIGHTED)  # fmt: skip
    else:
        _forward_one(K, KW, YK, k_b, k_l, k_h, o_token, o_b, o_l, m_token, cos, sin, eps, H, D, T, HP, DP, NORM,
                     K_WEIGHTED)  # fmt: skip


@triton.jit
def qk_norm_rope_bwd(
    X, W, DY, DX, DW, COS, SIN,
    x_b, x_l, x_h,
    tokens, L, h, w, n_first, per_frame, offset, eps,
    H: tl.constexpr, D: tl.constexpr, T: tl.constexpr, HP: tl.constexpr, DP: tl.constexpr,
    AXIS_F: tl.constexpr, AXIS_H: tl.constexpr, TARGET_FIRST: tl.constexpr,
    NORM: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Grid (programs,), for one of q and k: rotate DY [B, L, H, D] back and differentiate the norm.

    Every program walks over blocks of T tokens; DW [programs, HP, DP] fp32 receives the program's sum over them.
    """
    o_h = tl.arange(0, HP)[None, :, None]
    o_d = tl.arange(0, DP)[None, None, :]
    if WEIGHTED:
        weight = _weight(W, o_h, o_d, NORM, H, D)
        total = tl.zeros((HP, DP), tl.float32)
    for i_block in range(tl.program_id(0), tl.cdiv(tokens, T), tl.num_programs(0)):
        flat = i_block * T + tl.arange(0, T)
        cos, sin = _angles(COS, SIN, flat, L, h, w, n_first, per_frame, offset, D // 2, DP // 2, AXIS_F, AXIS_H,
                           TARGET_FIRST)  # fmt: skip
        cos, sin = cos[:, None, :], sin[:, None, :]
        o_token = flat.to(tl.int64)[:, None, None]
        m_x = (o_token < tokens) & (o_h < H) & (o_d < D)
        o_x = o_token * (H * D) + o_h * D + o_d
        dy = tl.load(DY + o_x, mask=m_x, other=0.0).to(tl.float32)
        dy0, dy1 = tl.split(tl.reshape(dy, (T, HP, DP // 2, 2)))
        dx = tl.reshape(tl.join(dy0 * cos + dy1 * sin, dy1 * cos - dy0 * sin), (T, HP, DP))
        if NORM != 0:
            o_b, o_l = o_token // L, o_token % L
            x = tl.load(X + o_b * x_b + o_l * x_l + o_h * x_h + o_d, mask=m_x, other=0.0)
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
        tl.store(DX + o_x, narrow(dx, DX.dtype.element_ty), mask=m_x)
    if WEIGHTED:
        o_row, o_column = tl.arange(0, HP)[:, None], tl.arange(0, DP)[None, :]
        tl.store(DW + (tl.program_id(0) * HP + o_row) * DP + o_column, total)


def tile(heads: int, dim: int) -> dict[str, int]:
    """Return the tokens of a program, T, and the padded sizes HP and DP."""
    hp, dp = padded(heads, 1), padded(dim)
    return {"T": max(1, min(16, TILE // (hp * dp))), "HP": hp, "DP": dp}


def layout(rope: Rope, head_dim: int) -> dict[str, int]:
    """Return the kernels' arguments that turn a token's number into its position and axes."""
    frames, height, width = rope.grid
    target_first = rope.order == "target_first"
    axis_frame, axis_row, _ = rope.axes(head_dim)
    return {
        "h": height,
        "w": width,
        "n_first": (frames if target_first else rope.reference_frames) * rope.per_frame,
        "per_frame": rope.per_frame,
        "offset": rope.offset,
        "AXIS_F": axis_frame // 2,
        "AXIS_H": axis_row // 2,
        "TARGET_FIRST": target_first,
    }


def forward(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    rope: Rope,
    *,
    norm: str,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return normed and rotated q and k, contiguous [B, L, H, D] in their dtype."""
    q, k = rows_last_contiguous(q), rows_last_contiguous(k)
    q_weight, k_weight = (None if w is None else w.contiguous() for w in (q_weight, k_weight))
    batch, length, heads, dim = q.shape
    out_q, out_k = (torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(2))
    if q.numel() == 0:
        return out_q, out_k
    cos, sin = separable_tables(rope, dim, q.device)
    sizes = tile(heads, dim)
    with device_context(q):
        qk_norm_rope_fwd[(triton.cdiv(batch * length, sizes["T"]), 2)](
            Q=q, K=k, QW=q_weight, KW=k_weight, YQ=out_q, YK=out_k, COS=cos, SIN=sin,
            **strides(q, "q_b q_l q_h"), **strides(k, "k_b k_l k_h"),
            tokens=batch * length, L=length, eps=eps, **layout(rope, dim),
            H=heads, D=dim, **sizes, NORM=NORMS[norm],
            Q_WEIGHTED=q_weight is not None, K_WEIGHTED=k_weight is not None,
            num_warps=FORWARD_WARPS,
        )  # fmt: skip
    return out_q, out_k


def backward_one(
    grad: Tensor, x: Tensor, weight: Tensor | None, rope: Rope, *, norm: str, eps: float
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of x [B, L, H, D] and of its weight, from the gradient of the rotated x (any dtype)."""
    x, grad = rows_last_contiguous(x), grad.contiguous()
    weight = None if weight is None else weight.contiguous()
    batch, length, heads, dim = x.shape
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return dx, None if weight is None else torch.zeros_like(weight)
    cos, sin = separable_tables(rope, dim, x.device)
    sizes = tile(heads, dim)
    programs = min(triton.cdiv(batch * length, sizes["T"]), PROGRAMS_PER_SM * processors(x))
    partial = None
    if weight is not None:
        partial = torch.empty(programs, sizes["HP"], sizes["DP"], dtype=torch.float32, device=x.device)
    with device_context(x):
        qk_norm_rope_bwd[(programs,)](
            X=x, W=weight, DY=grad, DX=dx, DW=partial, COS=cos, SIN=sin, **strides(x, "x_b x_l x_h"),
            tokens=batch * length, L=length, eps=eps, **layout(rope, dim),
            H=heads, D=dim, **sizes, NORM=NORMS[norm], WEIGHTED=weight is not None,
            num_warps=BACKWARD_WARPS,
        )  # fmt: skip
    if weight is None or partial is None:
        return dx, None
    summed = partial.sum(0)[:heads, :dim]
    summed = summed.sum(0) if norm == "head" else summed.flatten()
    return dx, summed.to(weight.dtype)
