"""Softmax attention without a mask, forward and backward; q [B, L, H, D], k and v [B, M, H, D].

Flash attention: scores exist only in registers. Forward keeps the log-sum-exp; backward recomputes the scores, either
in two kernels without any race (7 matrix products, the same bits on every run) or in one that sums dq in memory
with atomics (5 products, the order of additions differs). Exponentials are powers of two.
"""

from __future__ import annotations

import triton
import triton.language as tl

from xdub_kernels.triton_common import dot, narrow

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _load_rows(P, o_row, limit, stride, D: tl.constexpr, BD: tl.constexpr, EVEN: tl.constexpr):
    """Load rows [R, BD] of one head; zero beyond ``limit`` and beyond D. ``EVEN``: no row lies beyond ``limit``."""
    o_d = tl.arange(0, BD)
    p_rows = P + o_row[:, None] * stride + o_d[None, :]
    if EVEN:
        if D == BD:
            return tl.load(p_rows)
        return tl.load(p_rows, mask=(o_d < D)[None, :], other=0.0)
    return tl.load(p_rows, mask=(o_row < limit)[:, None] & (o_d < D)[None, :], other=0.0)


@triton.jit
def _store_rows(P, x, o_row, limit, stride, D: tl.constexpr, BD: tl.constexpr):
    """Store rows [R, BD] of one head up to ``limit`` and D."""
    o_d = tl.arange(0, BD)
    p_rows = P + o_row[:, None] * stride + o_d[None, :]
    tl.store(p_rows, narrow(x, P.dtype.element_ty), mask=(o_row < limit)[:, None] & (o_d < D)[None, :])


@triton.jit
def attention_fwd(
    Q, K, V, OUT, LSE,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h,
    H, L, M, scale,
    D: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
    EVEN_Q: tl.constexpr, EVEN_K: tl.constexpr, TMA: tl.constexpr, SPECIALISE: tl.constexpr,
):  # fmt: skip
    """Grid (B * H * blocks of BQ queries,). OUT [B, L, H, D] contiguous, LSE [B, H, L] fp32 (natural logarithm)."""
    n_blocks = tl.cdiv(L, BQ)
    i_bh = (tl.program_id(0) // n_blocks).to(tl.int64)
    i_b, i_h = i_bh // H, i_bh % H
    row_start = (tl.program_id(0) % n_blocks) * BQ
    o_row = row_start + tl.arange(0, BQ)
    K += i_b * k_b + i_h * k_h
    V += i_b * v_b + i_h * v_h
    Q += i_b * q_b + i_h * q_h
    if TMA:
        # Every load uses a descriptor, because warps can't be specialised around a load that goes through registers.
        q = tl.make_tensor_descriptor(Q, [L, D], [q_l, 1], [BQ, BD]).load([row_start, 0])
        desc_k = tl.make_tensor_descriptor(K, [M, D], [k_l, 1], [BK, BD])
        desc_v = tl.make_tensor_descriptor(V, [M, D], [v_l, 1], [BK, BD])
    else:
        q = _load_rows(Q, o_row, L, q_l, D, BD, EVEN_Q)
    running_max = tl.full((BQ,), float("-inf"), tl.float32)
    total = tl.zeros((BQ,), tl.float32)
    acc = tl.zeros((BQ, BD), tl.float32)
    scale2 = scale * LOG2E
    for start in tl.range(0, M, BK, warp_specialize=SPECIALISE):
        o_column = start + tl.arange(0, BK)
        if TMA:
            k = desc_k.load([start, 0])
        else:
            k = _load_rows(K, o_column, M, k_l, D, BD, EVEN_K)
        s = dot(q, tl.trans(k), tl.zeros((BQ, BK), tl.float32))
        if not EVEN_K:
            s = tl.where((o_column < M)[None, :], s, float("-inf"))
        new_max = tl.maximum(running_max, tl.max(s, 1) * scale2)
        p = tl.exp2(s * scale2 - new_max[:, None])
        rescale = tl.exp2(running_max - new_max)
        total = total * rescale + tl.sum(p, 1)
        acc = acc * rescale[:, None]
        if TMA:
            v = desc_v.load([start, 0])
        else:
            v = _load_rows(V, o_column, M, v_l, D, BD, EVEN_K)
        acc = dot(narrow(p, v.dtype), v, acc)
        running_max = new_max
    _store_rows(OUT + (i_b * L * H + i_h) * D, acc / total[:, None], o_row, L, H * D, D, BD)
    tl.store(LSE + i_bh * L + o_row, running_max * LN2 + tl.log(total), mask=o_row < L)


@triton.jit
def attention_delta(OUT, DO, DELTA, g_b, g_l, g_h, H, L, D: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr):
    """Grid as forward: DELTA [B, H, L] fp32 = sum over D of OUT * DO, which the softmax's backward subtracts."""
    n_blocks = tl.cdiv(L, BQ)
    i_bh = (tl.program_id(0) // n_blocks).to(tl.int64)
    i_b, i_h = i_bh // H, i_bh % H
    o_row = (tl.program_id(0) % n_blocks) * BQ + tl.arange(0, BQ)
    o = _load_rows(OUT + (i_b * L * H + i_h) * D, o_row, L, H * D, D, BD, False).to(tl.float32)
    do = _load_rows(DO + i_b * g_b + i_h * g_h, o_row, L, g_l, D, BD, False).to(tl.float32)
    tl.store(DELTA + i_bh * L + o_row, tl.sum(o * do, 1), mask=o_row < L)


@triton.jit
def attention_bwd_kv(
    Q, K, V, DO, LSE, DELTA, DQ, DK, DV,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h, g_b, g_l, g_h,
    H, L, M, scale,
    D: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
    EVEN_Q: tl.constexpr, EVEN_K: tl.constexpr, ADD_DQ: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Grid (B * H * blocks of BK keys,): DK, DV [B, M, H, D]. With ADD_DQ also adds to DQ [B, L, H, D] fp32."""
    n_blocks = tl.cdiv(M, BK)
    i_bh = (tl.program_id(0) // n_blocks).to(tl.int64)
    i_b, i_h = i_bh // H, i_bh % H
    o_column = (tl.program_id(0) % n_blocks) * BK + tl.arange(0, BK)
    k = _load_rows(K + i_b * k_b + i_h * k_h, o_column, M, k_l, D, BD, EVEN_K)
    v = _load_rows(V + i_b * v_b + i_h * v_h, o_column, M, v_l, D, BD, EVEN_K)
    Q += i_b * q_b + i_h * q_h
    DO += i_b * g_b + i_h * g_h
    LSE += i_bh * L
    DELTA += i_bh * L
    DQ += (i_b * L * H + i_h) * D
    if TMA:
        desc_q = tl.make_tensor_descriptor(Q, [L, D], [q_l, 1], [BQ, BD])
        desc_do = tl.make_tensor_descriptor(DO, [L, D], [g_l, 1], [BQ, BD])
        if ADD_DQ:
            desc_dq = tl.make_tensor_descriptor(DQ, [L, D], [H * D, 1], [BQ, BD])
    dk = tl.zeros((BK, BD), tl.float32)
    dv = tl.zeros((BK, BD), tl.float32)
    scale2 = scale * LOG2E
    for start in range(0, L, BQ):
        o_row = start + tl.arange(0, BQ)
        if TMA:
            q, do = desc_q.load([start, 0]), desc_do.load([start, 0])
        else:
            q = _load_rows(Q, o_row, L, q_l, D, BD, EVEN_Q)
            do = _load_rows(DO, o_row, L, g_l, D, BD, EVEN_Q)
        # An infinite sum makes p, and with it everything that a row beyond the end would add, zero.
        if EVEN_Q:
            lse, delta = tl.load(LSE + o_row), tl.load(DELTA + o_row)
        else:
            lse = tl.load(LSE + o_row, mask=o_row < L, other=float("inf"))
            delta = tl.load(DELTA + o_row, mask=o_row < L, other=0.0)
        s = dot(k, tl.trans(q), tl.zeros((BK, BQ), tl.float32))
        p = tl.exp2(s * scale2 - (lse * LOG2E)[None, :])
        if ADD_DQ and not EVEN_K:
            p = tl.where((o_column < M)[:, None], p, 0.0)
        dv = dot(narrow(p, do.dtype), do, dv)
        dp = dot(v, tl.trans(do), tl.zeros((BK, BQ), tl.float32))
        ds = narrow(p * (dp - delta[None, :]), q.dtype)
        dk = dot(ds, q, dk)
        if ADD_DQ:
            dq_block = dot(tl.trans(ds), k, tl.zeros((BQ, BD), tl.float32)) * scale
            if TMA:
                desc_dq.atomic_add([start, 0], dq_block)
            else:
                o_d = tl.arange(0, BD)
                p_dq = DQ + o_row[:, None] * (H * D) + o_d[None, :]
                tl.atomic_add(p_dq, dq_block, mask=(o_row < L)[:, None] & (o_d < D)[None, :], sem="relaxed")
    base = (i_b * M * H + i_h) * D
    _store_rows(DK + base, dk * scale, o_column, M, H * D, D, BD)
    _store_rows(DV + base, dv, o_column, M, H * D, D, BD)


@triton.jit
def attention_bwd_q(
    Q, K, V, DO, LSE, DELTA, DQ,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h, g_b, g_l, g_h,
    H, L, M, scale,
    D: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
    EVEN_Q: tl.constexpr, EVEN_K: tl.constexpr,
):  # fmt: skip
    """Grid (B * H * blocks of BQ queries,): DQ [B, L, H, D]."""
    n_blocks = tl.cdiv(L, BQ)
    i_bh = (tl.program_id(0) // n_blocks).to(tl.int64)
    i_b, i_h = i_bh // H, i_bh % H
    o_row = (tl.program_id(0) % n_blocks) * BQ + tl.arange(0, BQ)
    q = _load_rows(Q + i_b * q_b + i_h * q_h, o_row, L, q_l, D, BD, EVEN_Q)
    do = _load_rows(DO + i_b * g_b + i_h * g_h, o_row, L, g_l, D, BD, EVEN_Q)
    lse = tl.load(LSE + i_bh * L + o_row, mask=o_row < L, other=0.0) * LOG2E
    delta = tl.load(DELTA + i_bh * L + o_row, mask=o_row < L, other=0.0)
    K += i_b * k_b + i_h * k_h
    V += i_b * v_b + i_h * v_h
    dq = tl.zeros((BQ, BD), tl.float32)
    scale2 = scale * LOG2E
    for start in range(0, M, BK):
        o_column = start + tl.arange(0, BK)
        k = _load_rows(K, o_column, M, k_l, D, BD, EVEN_K)
        v = _load_rows(V, o_column, M, v_l, D, BD, EVEN_K)
        s = dot(q, tl.trans(k), tl.zeros((BQ, BK), tl.float32))
        p = tl.exp2(s * scale2 - lse[:, None])
        if not EVEN_K:
            p = tl.where((o_column < M)[None, :], p, 0.0)
        dp = dot(do, tl.trans(v), tl.zeros((BQ, BK), tl.float32))
        ds = p * (dp - delta[:, None])
        dq = dot(narrow(ds, k.dtype), k, dq)
    _store_rows(DQ + (i_b * L * H + i_h) * D, dq * scale, o_row, L, H * D, D, BD)
