"""Softmax attention without a mask, forward and backward; q [B, L, H, D], k and v [B, M, H, D].

Flash attention: scores exist only in registers. Forward keeps the log-sum-exp; backward computes scores anew, either
in two kernels without any race (7 matrix products, the same bits on every run) or in one that adds dq up in memory
with atomics (5 products, the order of additions differs). Exponentials are powers of two.
"""

from __future__ import annotations

import triton
import triton.language as tl

from xdub_kernels.triton_common import dot, narrow

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _rows(P, row, limit, stride, D: tl.constexpr, BD: tl.constexpr, EVEN: tl.constexpr):
    """Rows [R, BD] of one head; zero beyond ``limit`` and beyond D."""
    channel = tl.arange(0, BD)
    at = P + row[:, None] * stride + channel[None, :]
    if EVEN:
        if D == BD:
            return tl.load(at)
        return tl.load(at, mask=(channel < D)[None, :], other=0.0)
    return tl.load(at, mask=(row < limit)[:, None] & (channel < D)[None, :], other=0.0)


@triton.jit
def _put_rows(P, x, row, limit, stride, D: tl.constexpr, BD: tl.constexpr):
    channel = tl.arange(0, BD)
    at = P + row[:, None] * stride + channel[None, :]
    tl.store(at, narrow(x, P.dtype.element_ty), mask=(row < limit)[:, None] & (channel < D)[None, :])


@triton.jit
def attention_fwd(
    Q, K, V, OUT, LSE,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h,
    H, L, M, scale,
    D: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
    EVEN_Q: tl.constexpr, EVEN_K: tl.constexpr, TMA: tl.constexpr, SPECIALISE: tl.constexpr,
):  # fmt: skip
    """Grid (B * H * blocks of BQ queries,). OUT [B, L, H, D] contiguous, LSE [B, H, L] fp32 (natural logarithm)."""
    blocks = tl.cdiv(L, BQ)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    b, h = pair // H, pair % H
    first = (tl.program_id(0) % blocks) * BQ
    row = first + tl.arange(0, BQ)
    K += b * k_b + h * k_h
    V += b * v_b + h * v_h
    Q += b * q_b + h * q_h
    if TMA:
        # All loads: warps can't be specialised around a load that goes through registers.
        q = tl.make_tensor_descriptor(Q, [L, D], [q_l, 1], [BQ, BD]).load([first, 0])
        k_tiles = tl.make_tensor_descriptor(K, [M, D], [k_l, 1], [BK, BD])
        v_tiles = tl.make_tensor_descriptor(V, [M, D], [v_l, 1], [BK, BD])
    else:
        q = _rows(Q, row, L, q_l, D, BD, EVEN_Q)
    highest = tl.full((BQ,), float("-inf"), tl.float32)
    total = tl.zeros((BQ,), tl.float32)
    acc = tl.zeros((BQ, BD), tl.float32)
    scale2 = scale * LOG2E
    for start in tl.range(0, M, BK, warp_specialize=SPECIALISE):
        column = start + tl.arange(0, BK)
        if TMA:
            k = k_tiles.load([start, 0])
        else:
            k = _rows(K, column, M, k_l, D, BD, EVEN_K)
        s = dot(q, tl.trans(k), tl.zeros((BQ, BK), tl.float32))
        if not EVEN_K:
            s = tl.where((column < M)[None, :], s, float("-inf"))
        higher = tl.maximum(highest, tl.max(s, 1) * scale2)
        p = tl.exp2(s * scale2 - higher[:, None])
        shrink = tl.exp2(highest - higher)
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None]
        if TMA:
            v = v_tiles.load([start, 0])
        else:
            v = _rows(V, column, M, v_l, D, BD, EVEN_K)
        acc = dot(narrow(p, v.dtype), v, acc)
        highest = higher
    _put_rows(OUT + (b * L * H + h) * D, acc / total[:, None], row, L, H * D, D, BD)
    tl.store(LSE + pair * L + row, highest * LN2 + tl.log(total), mask=row < L)


@triton.jit
def attention_delta(OUT, DO, DELTA, g_b, g_l, g_h, H, L, D: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr):
    """DELTA [B, H, L] fp32 = sum over D of OUT * DO: what the softmax's backward subtracts. Grid as forward."""
    blocks = tl.cdiv(L, BQ)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    b, h = pair // H, pair % H
    row = (tl.program_id(0) % blocks) * BQ + tl.arange(0, BQ)
    o = _rows(OUT + (b * L * H + h) * D, row, L, H * D, D, BD, False).to(tl.float32)
    do = _rows(DO + b * g_b + h * g_h, row, L, g_l, D, BD, False).to(tl.float32)
    tl.store(DELTA + pair * L + row, tl.sum(o * do, 1), mask=row < L)


@triton.jit
def attention_bwd_kv(
    Q, K, V, DO, LSE, DELTA, DQ, DK, DV,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h, g_b, g_l, g_h,
    H, L, M, scale,
    D: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
    EVEN_Q: tl.constexpr, EVEN_K: tl.constexpr, ADD_DQ: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Grid (B * H * blocks of BK keys,): DK, DV [B, M, H, D]. With ADD_DQ also adds to DQ [B, L, H, D] fp32."""
    blocks = tl.cdiv(M, BK)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    b, h = pair // H, pair % H
    column = (tl.program_id(0) % blocks) * BK + tl.arange(0, BK)
    k = _rows(K + b * k_b + h * k_h, column, M, k_l, D, BD, EVEN_K)
    v = _rows(V + b * v_b + h * v_h, column, M, v_l, D, BD, EVEN_K)
    Q += b * q_b + h * q_h
    DO += b * g_b + h * g_h
    LSE += pair * L
    DELTA += pair * L
    DQ += (b * L * H + h) * D
    if TMA:
        q_tiles = tl.make_tensor_descriptor(Q, [L, D], [q_l, 1], [BQ, BD])
        do_tiles = tl.make_tensor_descriptor(DO, [L, D], [g_l, 1], [BQ, BD])
        if ADD_DQ:
            dq_tiles = tl.make_tensor_descriptor(DQ, [L, D], [H * D, 1], [BQ, BD])
    dk = tl.zeros((BK, BD), tl.float32)
    dv = tl.zeros((BK, BD), tl.float32)
    scale2 = scale * LOG2E
    for start in range(0, L, BQ):
        row = start + tl.arange(0, BQ)
        if TMA:
            q, do = q_tiles.load([start, 0]), do_tiles.load([start, 0])
        else:
            q = _rows(Q, row, L, q_l, D, BD, EVEN_Q)
            do = _rows(DO, row, L, g_l, D, BD, EVEN_Q)
        # An infinite sum makes p, and with it everything that a row beyond the end would add, zero.
        if EVEN_Q:
            lse, delta = tl.load(LSE + row), tl.load(DELTA + row)
        else:
            lse = tl.load(LSE + row, mask=row < L, other=float("inf"))
            delta = tl.load(DELTA + row, mask=row < L, other=0.0)
        s = dot(k, tl.trans(q), tl.zeros((BK, BQ), tl.float32))
        p = tl.exp2(s * scale2 - (lse * LOG2E)[None, :])
        if ADD_DQ and not EVEN_K:
            p = tl.where((column < M)[:, None], p, 0.0)
        dv = dot(narrow(p, do.dtype), do, dv)
        dp = dot(v, tl.trans(do), tl.zeros((BK, BQ), tl.float32))
        ds = narrow(p * (dp - delta[None, :]), q.dtype)
        dk = dot(ds, q, dk)
        if ADD_DQ:
            part = dot(tl.trans(ds), k, tl.zeros((BQ, BD), tl.float32)) * scale
            if TMA:
                dq_tiles.atomic_add([start, 0], part)
            else:
                channel = tl.arange(0, BD)
                at = DQ + row[:, None] * (H * D) + channel[None, :]
                tl.atomic_add(at, part, mask=(row < L)[:, None] & (channel < D)[None, :], sem="relaxed")
    base = (b * M * H + h) * D
    _put_rows(DK + base, dk * scale, column, M, H * D, D, BD)
    _put_rows(DV + base, dv, column, M, H * D, D, BD)


@triton.jit
def attention_bwd_q(
    Q, K, V, DO, LSE, DELTA, DQ,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h, g_b, g_l, g_h,
    H, L, M, scale,
    D: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
    EVEN_Q: tl.constexpr, EVEN_K: tl.constexpr,
):  # fmt: skip
    """Grid (B * H * blocks of BQ queries,): DQ [B, L, H, D]."""
    blocks = tl.cdiv(L, BQ)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    b, h = pair // H, pair % H
    row = (tl.program_id(0) % blocks) * BQ + tl.arange(0, BQ)
    q = _rows(Q + b * q_b + h * q_h, row, L, q_l, D, BD, EVEN_Q)
    do = _rows(DO + b * g_b + h * g_h, row, L, g_l, D, BD, EVEN_Q)
    lse = tl.load(LSE + pair * L + row, mask=row < L, other=0.0) * LOG2E
    delta = tl.load(DELTA + pair * L + row, mask=row < L, other=0.0)
    K += b * k_b + h * k_h
    V += b * v_b + h * v_h
    dq = tl.zeros((BQ, BD), tl.float32)
    scale2 = scale * LOG2E
    for start in range(0, M, BK):
        column = start + tl.arange(0, BK)
        k = _rows(K, column, M, k_l, D, BD, EVEN_K)
        v = _rows(V, column, M, v_l, D, BD, EVEN_K)
        s = dot(q, tl.trans(k), tl.zeros((BQ, BK), tl.float32))
        p = tl.exp2(s * scale2 - lse[:, None])
        if not EVEN_K:
            p = tl.where((column < M)[None, :], p, 0.0)
        dp = dot(do, tl.trans(v), tl.zeros((BQ, BK), tl.float32))
        ds = p * (dp - delta[:, None])
        dq = dot(narrow(ds, k.dtype), k, dq)
    _put_rows(DQ + (b * L * H + h) * D, dq * scale, row, L, H * D, D, BD)
