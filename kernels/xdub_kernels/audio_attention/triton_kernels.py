"""Frame-wise audio cross-attention: windows are read in place, never gathered to memory.

The few rows of a window fit one matrix product, so softmax needs a single pass and backward recomputes it from q and
k. Windows overlap, so backward writes one small gradient per window, and a second kernel sums, for every row, the
windows that hold the row, frame after frame. Without atomics every run returns the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xdub_kernels.triton_common import device_context, dot, narrow, padded, rows_last_contiguous, strides

LOG2E = tl.constexpr(1.4426950408889634)
TOKENS = 64
"""Query tokens of a program of forward, and of a loop iteration of backward."""
FORWARD_WARPS = BACKWARD_WARPS = 4
ROWS = 16
"""Audio rows of a program of `audio_attention_overlap`."""


@triton.jit
def _window(P, o_row, m_row, D: tl.constexpr, BD: tl.constexpr, stride):
    """Load the rows [BW, BD] of one head's window; zero where ``m_row`` is False."""
    o_d = tl.arange(0, BD)
    m_window = m_row[:, None] & (o_d < D)[None, :]
    return tl.load(P + o_row[:, None] * stride + o_d[None, :], mask=m_window, other=0.0)


@triton.jit
def _probabilities(q, k, m_row, scale):
    """Return softmax(q k^T * scale) [BN, BW] fp32 over the rows of ``m_row``; zeros if it has none."""
    s = dot(q, tl.trans(k), tl.zeros((q.shape[0], k.shape[0]), tl.float32)) * (scale * LOG2E)
    s = tl.where(m_row[None, :], s, -1e30)
    p = tl.exp2(s - tl.max(s, 1)[:, None])
    p = tl.where(m_row[None, :], p, 0.0)
    return p / tl.maximum(tl.sum(p, 1), 1e-30)[:, None]


@triton.jit
def audio_attention_fwd(
    Q, K, V, STARTS, ENABLED, OUT,
    q_b, q_f, q_n, q_h, k_b, k_t, k_h, v_b, v_t, v_h,
    F, N, T, scale,
    H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, W: tl.constexpr, BW: tl.constexpr, BN: tl.constexpr,
    GATED: tl.constexpr,
):  # fmt: skip
    """Grid (B * F * blocks of BN tokens, H). OUT [B, F, N, H, D] contiguous; STARTS int64 [B, F]."""
    n_blocks = tl.cdiv(N, BN)
    i_bf = (tl.program_id(0) // n_blocks).to(tl.int64)
    i_b, i_f = i_bf // F, i_bf % F
    i_h = tl.program_id(1).to(tl.int64)
    o_n = (tl.program_id(0) % n_blocks) * BN + tl.arange(0, BN)
    o_d = tl.arange(0, BD)
    m_q = (o_n < N)[:, None] & (o_d < D)[None, :]
    p_out = OUT + (i_bf * N * H + i_h) * D + o_n[:, None] * (H * D) + o_d[None, :]
    enabled = True
    if GATED:
        enabled = tl.load(ENABLED + i_b) != 0
    o_slot = tl.arange(0, BW)
    o_row = tl.load(STARTS + i_bf) + o_slot
    m_row = (o_row >= 0) & (o_row < T) & (o_slot < W)
    if enabled:
        p_q = Q + i_b * q_b + i_f * q_f + i_h * q_h + o_n[:, None] * q_n + o_d[None, :]
        q = tl.load(p_q, mask=m_q, other=0.0)
        k = _window(K + i_b * k_b + i_h * k_h, o_row, m_row, D, BD, k_t)
        v = _window(V + i_b * v_b + i_h * v_h, o_row, m_row, D, BD, v_t)
        p = _probabilities(q, k, m_row, scale)
        has_rows = tl.sum(m_row.to(tl.int32), 0) > 0
        o = tl.where(has_rows, dot(narrow(p, v.dtype), v, tl.zeros((BN, BD), tl.float32)), 0.0)
        tl.store(p_out, narrow(o, OUT.dtype.element_ty), mask=m_q)
    else:
        tl.store(p_out, tl.zeros((BN, BD), OUT.dtype.element_ty), mask=m_q)


@triton.jit
def audio_attention_bwd(
    Q, K, V, DO, STARTS, ENABLED, DQ, DKW, DVW,
    q_b, q_f, q_n, q_h, k_b, k_t, k_h, v_b, v_t, v_h,
    F, N, T, scale,
    H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, W: tl.constexpr, BW: tl.constexpr, BN: tl.constexpr,
    GATED: tl.constexpr,
):  # fmt: skip
    """Grid (B * F, H). DO, DQ [B, F, N, H, D] contiguous; DKW, DVW [B, F, H, BW, BD] fp32, one per window."""
    i_bf = tl.program_id(0).to(tl.int64)
    i_b, i_f = i_bf // F, i_bf % F
    i_h = tl.program_id(1).to(tl.int64)
    o_d = tl.arange(0, BD)
    o_slot = tl.arange(0, BW)
    o_row = tl.load(STARTS + i_bf) + o_slot
    m_row = (o_row >= 0) & (o_row < T) & (o_slot < W)
    o_window = ((i_bf * H + i_h) * BW + o_slot[:, None]) * BD + o_d[None, :]
    base = (i_bf * N * H + i_h) * D
    enabled = tl.sum(m_row.to(tl.int32), 0) > 0
    if GATED:
        enabled = enabled & (tl.load(ENABLED + i_b) != 0)
    dk = tl.zeros((BW, BD), tl.float32)
    dv = tl.zeros((BW, BD), tl.float32)
    if enabled:
        k = _window(K + i_b * k_b + i_h * k_h, o_row, m_row, D, BD, k_t)
        v = _window(V + i_b * v_b + i_h * v_h, o_row, m_row, D, BD, v_t)
        for start in range(0, N, BN):
            o_n = start + tl.arange(0, BN)
            m_q = (o_n < N)[:, None] & (o_d < D)[None, :]
            p_q = Q + i_b * q_b + i_f * q_f + i_h * q_h + o_n[:, None] * q_n + o_d[None, :]
            q = tl.load(p_q, mask=m_q, other=0.0)
            o_q = base + o_n[:, None] * (H * D) + o_d[None, :]
            do = tl.load(DO + o_q, mask=m_q, other=0.0)
            p = _probabilities(q, k, m_row, scale)
            dv = dot(tl.trans(narrow(p, do.dtype)), do, dv)
            dp = dot(do, tl.trans(v), tl.zeros((BN, BW), tl.float32))
            ds = p * (dp - tl.sum(p * dp, 1)[:, None])
            ds = narrow(ds, q.dtype)
            dk = dot(tl.trans(ds), q, dk)
            dq = dot(ds, k, tl.zeros((BN, BD), tl.float32)) * scale
            tl.store(DQ + o_q, narrow(dq, DQ.dtype.element_ty), mask=m_q)
    else:
        for start in range(0, N, BN):
            o_n = start + tl.arange(0, BN)
            m_q = (o_n < N)[:, None] & (o_d < D)[None, :]
            o_q = base + o_n[:, None] * (H * D) + o_d[None, :]
            tl.store(DQ + o_q, tl.zeros((BN, BD), DQ.dtype.element_ty), mask=m_q)
    tl.store(DKW + o_window, dk * scale)
    tl.store(DVW + o_window, dv)


@triton.jit
def audio_attention_overlap(
    DKW, DVW, STARTS, DK, DV, F, T,
    H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, W: tl.constexpr, BW: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """Grid (B * blocks of BT rows, H): DK, DV [B, T, H, D] = sum over the windows that hold the row."""
    n_blocks = tl.cdiv(T, BT)
    i_b = (tl.program_id(0) // n_blocks).to(tl.int64)
    i_h = tl.program_id(1).to(tl.int64)
    o_row = (tl.program_id(0) % n_blocks) * BT + tl.arange(0, BT)
    o_d = tl.arange(0, BD)
    dk = tl.zeros((BT, BD), tl.float32)
    dv = tl.zeros((BT, BD), tl.float32)
    for i_f in range(0, F):
        o_slot = o_row - tl.load(STARTS + i_b * F + i_f)
        m_row = (o_slot >= 0) & (o_slot < W)
        o_window = (((i_b * F + i_f) * H + i_h) * BW + o_slot[:, None]) * BD + o_d[None, :]
        m_window = m_row[:, None] & (o_d < D)[None, :]
        dk += tl.load(DKW + o_window, mask=m_window, other=0.0)
        dv += tl.load(DVW + o_window, mask=m_window, other=0.0)
    o_out = ((i_b * T + o_row[:, None]) * H + i_h) * D + o_d[None, :]
    m_out = (o_row < T)[:, None] & (o_d < D)[None, :]
    tl.store(DK + o_out, narrow(dk, DK.dtype.element_ty), mask=m_out)
    tl.store(DV + o_out, narrow(dv, DV.dtype.element_ty), mask=m_out)


def forward(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, window: int, enabled: Tensor | None) -> Tensor:
    """Return [B, F, N, H, D] for q [B, F, N, H, D], k, v [B, T, H, D], starts int64 [B, F], enabled bool [B]."""
    q, k, v = (rows_last_contiguous(x) for x in (q, k, v))
    batch, frames, tokens, heads, dim = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if out.numel() == 0:
        return out
    if k.shape[1] == 0:
        return out.zero_()
    gate = None if enabled is None else enabled.to(torch.int8)
    with device_context(q):
        audio_attention_fwd[(batch * frames * triton.cdiv(tokens, TOKENS), heads)](
            Q=q, K=k, V=v, STARTS=starts.contiguous(), ENABLED=gate, OUT=out, **_qkv_strides(q, k, v),
            F=frames, N=tokens, T=k.shape[1], scale=dim**-0.5,
            H=heads, D=dim, BD=padded(dim), W=window, BW=padded(window), BN=TOKENS, GATED=gate is not None,
            num_warps=FORWARD_WARPS,
        )  # fmt: skip
    return out


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, window: int, enabled: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, contiguous."""
    q, k, v = (rows_last_contiguous(x) for x in (q, k, v))
    batch, frames, tokens, heads, dim = q.shape
    rows = k.shape[1]
    dq = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    dk, dv = (torch.empty(k.shape, dtype=k.dtype, device=k.device) for _ in range(2))
    if q.numel() == 0 or rows == 0:
        return dq.zero_(), dk.zero_(), dv.zero_()
    gate = None if enabled is None else enabled.to(torch.int8)
    starts = starts.contiguous()
    sizes = dict(H=heads, D=dim, BD=padded(dim), W=window, BW=padded(window))
    per_window = (batch, frames, heads, sizes["BW"], sizes["BD"])
    dkw, dvw = (torch.empty(per_window, dtype=torch.float32, device=q.device) for _ in range(2))
    with device_context(q):
        audio_attention_bwd[(batch * frames, heads)](
            Q=q, K=k, V=v, DO=grad.contiguous(), STARTS=starts, ENABLED=gate, DQ=dq, DKW=dkw, DVW=dvw,
            **_qkv_strides(q, k, v), F=frames, N=tokens, T=rows, scale=dim**-0.5,
            **sizes, BN=TOKENS, GATED=gate is not None, num_warps=BACKWARD_WARPS,
        )  # fmt: skip
        audio_attention_overlap[(batch * triton.cdiv(rows, ROWS), heads)](
            DKW=dkw, DVW=dvw, STARTS=starts, DK=dk, DV=dv, F=frames, T=rows, **sizes, BT=ROWS
        )
    return dq, dk, dv


def _qkv_strides(q: Tensor, k: Tensor, v: Tensor) -> dict[str, int]:
    return strides(q, "q_b q_f q_n q_h") | strides(k, "k_b k_t k_h") | strides(v, "v_b v_t v_h")
