"""Frame-wise audio cross-attention: windows are read in place, never gathered to memory.

The few rows of a window fit one matrix product, so softmax needs a single pass and backward computes it anew from q and
k. Windows overlap: backward leaves one small gradient per window, and a second kernel adds up, for every row, the
windows that hold it, frame after frame. No atomics, the same bits on every run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xdub_kernels.triton_common import device_context, dot, narrow, padded, rows_last_contiguous

LOG2E = tl.constexpr(1.4426950408889634)
TOKENS = 64
FORWARD_WARPS = BACKWARD_WARPS = 4
ROWS = 16


@triton.jit
def _window(P, at, known, D: tl.constexpr, BD: tl.constexpr, stride):
    channel = tl.arange(0, BD)
    mask = known[:, None] & (channel < D)[None, :]
    return tl.load(P + at[:, None] * stride + channel[None, :], mask=mask, other=0.0)


@triton.jit
def _probabilities(q, k, known, scale):
    """softmax(q k^T * scale) [BN, BW] fp32 over the rows that are known; zeros where none is."""
    s = dot(q, tl.trans(k), tl.zeros((q.shape[0], k.shape[0]), tl.float32)) * (scale * LOG2E)
    s = tl.where(known[None, :], s, -1e30)
    p = tl.exp2(s - tl.max(s, 1)[:, None])
    p = tl.where(known[None, :], p, 0.0)
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
    blocks = tl.cdiv(N, BN)
    frame = (tl.program_id(0) // blocks).to(tl.int64)
    b, f = frame // F, frame % F
    h = tl.program_id(1).to(tl.int64)
    token = (tl.program_id(0) % blocks) * BN + tl.arange(0, BN)
    channel = tl.arange(0, BD)
    mask = (token < N)[:, None] & (channel < D)[None, :]
    out = OUT + (frame * N * H + h) * D + token[:, None] * (H * D) + channel[None, :]
    enabled = True
    if GATED:
        enabled = tl.load(ENABLED + b) != 0
    slot = tl.arange(0, BW)
    row = tl.load(STARTS + frame) + slot
    known = (row >= 0) & (row < T) & (slot < W)
    if enabled:
        at = Q + b * q_b + f * q_f + h * q_h + token[:, None] * q_n + channel[None, :]
        q = tl.load(at, mask=mask, other=0.0)
        k = _window(K + b * k_b + h * k_h, row, known, D, BD, k_t)
        v = _window(V + b * v_b + h * v_h, row, known, D, BD, v_t)
        p = _probabilities(q, k, known, scale)
        heard = tl.sum(known.to(tl.int32), 0) > 0
        o = tl.where(heard, dot(narrow(p, v.dtype), v, tl.zeros((BN, BD), tl.float32)), 0.0)
        tl.store(out, narrow(o, OUT.dtype.element_ty), mask=mask)
    else:
        tl.store(out, tl.zeros((BN, BD), OUT.dtype.element_ty), mask=mask)


@triton.jit
def audio_attention_bwd(
    Q, K, V, DO, STARTS, ENABLED, DQ, DKW, DVW,
    q_b, q_f, q_n, q_h, k_b, k_t, k_h, v_b, v_t, v_h,
    F, N, T, scale,
    H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, W: tl.constexpr, BW: tl.constexpr, BN: tl.constexpr,
    GATED: tl.constexpr,
):  # fmt: skip
    """Grid (B * F, H). DO, DQ [B, F, N, H, D] contiguous; DKW, DVW [B, F, H, BW, BD] fp32, one per window."""
    frame = tl.program_id(0).to(tl.int64)
    b, f = frame // F, frame % F
    h = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, BD)
    slot = tl.arange(0, BW)
    row = tl.load(STARTS + frame) + slot
    known = (row >= 0) & (row < T) & (slot < W)
    window = ((frame * H + h) * BW + slot[:, None]) * BD + channel[None, :]
    base = (frame * N * H + h) * D
    enabled = tl.sum(known.to(tl.int32), 0) > 0
    if GATED:
        enabled = enabled & (tl.load(ENABLED + b) != 0)
    dk = tl.zeros((BW, BD), tl.float32)
    dv = tl.zeros((BW, BD), tl.float32)
    if enabled:
        k = _window(K + b * k_b + h * k_h, row, known, D, BD, k_t)
        v = _window(V + b * v_b + h * v_h, row, known, D, BD, v_t)
        for start in range(0, N, BN):
            token = start + tl.arange(0, BN)
            mask = (token < N)[:, None] & (channel < D)[None, :]
            at = Q + b * q_b + f * q_f + h * q_h + token[:, None] * q_n + channel[None, :]
            q = tl.load(at, mask=mask, other=0.0)
            out = base + token[:, None] * (H * D) + channel[None, :]
            do = tl.load(DO + out, mask=mask, other=0.0)
            p = _probabilities(q, k, known, scale)
            dv = dot(tl.trans(narrow(p, do.dtype)), do, dv)
            dp = dot(do, tl.trans(v), tl.zeros((BN, BW), tl.float32))
            ds = p * (dp - tl.sum(p * dp, 1)[:, None])
            ds = narrow(ds, q.dtype)
            dk = dot(tl.trans(ds), q, dk)
            dq = dot(ds, k, tl.zeros((BN, BD), tl.float32)) * scale
            tl.store(DQ + out, narrow(dq, DQ.dtype.element_ty), mask=mask)
    else:
        for start in range(0, N, BN):
            token = start + tl.arange(0, BN)
            mask = (token < N)[:, None] & (channel < D)[None, :]
            out = base + token[:, None] * (H * D) + channel[None, :]
            tl.store(DQ + out, tl.zeros((BN, BD), DQ.dtype.element_ty), mask=mask)
    tl.store(DKW + window, dk * scale)
    tl.store(DVW + window, dv)


@triton.jit
def audio_attention_overlap(
    DKW, DVW, STARTS, DK, DV, F, T,
    H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, W: tl.constexpr, BW: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """Grid (B * blocks of BT rows, H): DK, DV [B, T, H, D] = sum over the windows that hold the row."""
    blocks = tl.cdiv(T, BT)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    h = tl.program_id(1).to(tl.int64)
    row = (tl.program_id(0) % blocks) * BT + tl.arange(0, BT)
    channel = tl.arange(0, BD)
    dk = tl.zeros((BT, BD), tl.float32)
    dv = tl.zeros((BT, BD), tl.float32)
    for f in range(0, F):
        slot = row - tl.load(STARTS + b * F + f)
        held = (slot >= 0) & (slot < W)
        at = (((b * F + f) * H + h) * BW + slot[:, None]) * BD + channel[None, :]
        mask = held[:, None] & (channel < D)[None, :]
        dk += tl.load(DKW + at, mask=mask, other=0.0)
        dv += tl.load(DVW + at, mask=mask, other=0.0)
    out = ((b * T + row[:, None]) * H + h) * D + channel[None, :]
    mask = (row < T)[:, None] & (channel < D)[None, :]
    tl.store(DK + out, narrow(dk, DK.dtype.element_ty), mask=mask)
    tl.store(DV + out, narrow(dv, DV.dtype.element_ty), mask=mask)


def forward(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, window: int, enabled: Tensor | None) -> Tensor:
    """q [B, F, N, H, D], k, v [B, T, H, D], starts int64 [B, F], enabled bool [B] -> [B, F, N, H, D]."""
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
            q, k, v, starts.contiguous(), gate, out,
            *q.stride()[:4], *k.stride()[:3], *v.stride()[:3], frames, tokens, k.shape[1], dim**-0.5,
            H=heads, D=dim, BD=padded(dim), W=window, BW=padded(window), BN=TOKENS, GATED=gate is not None,
            num_warps=FORWARD_WARPS,
        )  # fmt: skip
    return out


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, window: int, enabled: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, contiguous."""
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
    of_window = (batch, frames, heads, sizes["BW"], sizes["BD"])
    dkw, dvw = (torch.empty(of_window, dtype=torch.float32, device=q.device) for _ in range(2))
    with device_context(q):
        audio_attention_bwd[(batch * frames, heads)](
            q, k, v, grad.contiguous(), starts, gate, dq, dkw, dvw,
            *q.stride()[:4], *k.stride()[:3], *v.stride()[:3], frames, tokens, rows, dim**-0.5,
            **sizes, BN=TOKENS, GATED=gate is not None, num_warps=BACKWARD_WARPS,
        )  # fmt: skip
        audio_attention_overlap[(batch * triton.cdiv(rows, ROWS), heads)](
            dkw, dvw, starts, dk, dv, frames, rows, **sizes, BT=ROWS
        )
    return dq, dk, dv
