"""Noising, and the weighted flow-matching loss with its gradient in one pass over memory.

A program owns a block of positions (frame, row, column) of one sample and walks over the channels, so that the two
masks are read once and not once per channel. The program writes the gradient and one partial sum; a second, tiny kernel
adds the partial sums in a fixed order. Without atomics the same inputs return the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xdub_kernels.triton_common import device_context, narrow

POSITIONS = 1024
"""Elements of a program's block."""
WARPS = 4
LARGEST_CHUNK = 1024
"""Largest number of partial sums that are loaded at once."""


@triton.jit
def flow_loss_fwd(
    V, Z, EPS, FACE, LIP, MOTION, DV, PARTIAL,
    C, S, HW, face_weight, lip_weight,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of positions, B). V, Z, EPS, DV [B, C, S]; masks [B, S]; PARTIAL [B, blocks] fp32.

    DV is weight x difference, which is of order one, so that fp16 holds it. Backward divides by the number of elements.
    """
    i_b = tl.program_id(1).to(tl.int64)
    o_s = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_s = o_s < S
    m_counted = m_s & (o_s // HW >= tl.load(MOTION + i_b))
    face = tl.load(FACE + i_b * S + o_s, mask=m_counted, other=0.0).to(tl.float32)
    lip = tl.load(LIP + i_b * S + o_s, mask=m_counted, other=0.0).to(tl.float32)
    weight = 1.0 + face_weight * face + lip_weight * lip
    total = tl.zeros((BLOCK,), tl.float32)
    for i_c in range(0, C):
        o_v = (i_b * C + i_c) * S + o_s
        v = tl.load(V + o_v, mask=m_counted, other=0.0).to(tl.float32)
        z = tl.load(Z + o_v, mask=m_counted, other=0.0).to(tl.float32)
        eps = tl.load(EPS + o_v, mask=m_counted, other=0.0).to(tl.float32)
        difference = v - (eps - z)
        weighted = weight * difference
        total += weighted * difference
        tl.store(DV + o_v, narrow(weighted, DV.dtype.element_ty), mask=m_s)
    tl.store(PARTIAL + i_b * tl.num_programs(0) + tl.program_id(0), tl.sum(total, 0))


@triton.jit
def flow_loss_sums(PARTIAL, MOTION, SUMS, NUMBERS, blocks, C, S, HW, CHUNK: tl.constexpr):
    """Grid (B,): SUMS [B] fp32 = a sample's partial sums in a fixed order, and NUMBERS [B] int64."""
    i_b = tl.program_id(0)
    total = tl.zeros((CHUNK,), tl.float32)
    for start in range(0, blocks, CHUNK):
        o_block = start + tl.arange(0, CHUNK)
        total += tl.load(PARTIAL + i_b * blocks + o_block, mask=o_block < blocks, other=0.0)
    tl.store(SUMS + i_b, tl.sum(total, 0))
    frames = S // HW - tl.load(MOTION + i_b)
    tl.store(NUMBERS + i_b, frames.to(tl.int64) * C * HW)


@triton.jit
def flow_loss_mean(SUMS, NUMBERS, LOSS, PER_ELEMENT, B, CHUNK: tl.constexpr):
    """Grid (1,): LOSS [] = mean of the samples' means; PER_ELEMENT [B] = 2 / (B number), the gradient's factor."""
    total = tl.zeros((CHUNK,), tl.float32)
    for start in range(0, B, CHUNK):
        o_sample = start + tl.arange(0, CHUNK)
        m_sample = o_sample < B
        number = tl.maximum(tl.load(NUMBERS + o_sample, mask=m_sample, other=1), 1).to(tl.float32)
        total += tl.load(SUMS + o_sample, mask=m_sample, other=0.0) / number
        tl.store(PER_ELEMENT + o_sample, 2.0 / (number * B), mask=m_sample)
    tl.store(LOSS, tl.sum(total, 0) / B)


@triton.jit
def add_noise_fwd(Z, EPS, T, MOTION, OUT, C, S, HW, BLOCK: tl.constexpr):
    """Grid (blocks of C * S, B): OUT = (1 - t) z + t eps, and z itself in the motion frames."""
    i_b = tl.program_id(1).to(tl.int64)
    o_e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_e = o_e < C * S
    m_noisy = (o_e % S) // HW >= tl.load(MOTION + i_b)
    t = tl.load(T + i_b).to(tl.float32)
    o_z = i_b * C * S + o_e
    z = tl.load(Z + o_z, mask=m_e, other=0.0)
    # eps is also read in motion frames, because a mask that follows frames would break loads into pieces of 2 bytes.
    eps = tl.load(EPS + o_z, mask=m_e, other=0.0).to(tl.float32)
    blend = narrow((1.0 - t) * z.to(tl.float32) + t * eps, OUT.dtype.element_ty)
    tl.store(OUT + o_z, tl.where(m_noisy, blend, z), mask=m_e)


def flow_loss(
    v_hat: Tensor,
    z0: Tensor,
    eps: Tensor,
    face_mask: Tensor,
    lip_mask: Tensor,
    motion_frames: Tensor,
    face_weight: float,
    lip_weight: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the loss [], sums [B], numbers [B] int64, weight x difference in v_hat's dtype and its factor [B].

    Weight x difference times its factor is the gradient of v_hat. ``motion_frames`` is int64 [B].
    """
    v_hat, z0, eps, face_mask, lip_mask = (x.contiguous() for x in (v_hat, z0, eps, face_mask, lip_mask))
    batch, channels, frames, height, width = v_hat.shape
    positions = frames * height * width
    blocks = triton.cdiv(positions, POSITIONS)
    weighted = torch.empty_like(v_hat)
    loss = torch.empty((), dtype=torch.float32, device=v_hat.device)
    sums, per_element = (torch.empty(batch, dtype=torch.float32, device=v_hat.device) for _ in range(2))
    numbers = torch.empty(batch, dtype=torch.int64, device=v_hat.device)
    if v_hat.numel() == 0:
        return loss.zero_(), sums.zero_(), numbers.zero_(), weighted, per_element.zero_()
    partial = torch.empty(batch, blocks, dtype=torch.float32, device=v_hat.device)
    sizes = {"C": channels, "S": positions, "HW": height * width}
    with device_context(v_hat):
        flow_loss_fwd[(blocks, batch)](
            V=v_hat, Z=z0, EPS=eps, FACE=face_mask, LIP=lip_mask, MOTION=motion_frames, DV=weighted,
            PARTIAL=partial, **sizes, face_weight=face_weight, lip_weight=lip_weight, BLOCK=POSITIONS, num_warps=WARPS,
        )  # fmt: skip
        flow_loss_sums[(batch,)](
            PARTIAL=partial, MOTION=motion_frames, SUMS=sums, NUMBERS=numbers, blocks=blocks, **sizes,
            CHUNK=_chunk(blocks),
        )  # fmt: skip
        flow_loss_mean[(1,)](
            SUMS=sums, NUMBERS=numbers, LOSS=loss, PER_ELEMENT=per_element, B=batch, CHUNK=_chunk(batch)
        )
    return loss, sums, numbers, weighted, per_element


def add_noise(z0: Tensor, eps: Tensor, t: Tensor, motion_frames: Tensor) -> Tensor:
    """Return z_t [B, C, f, h, w] in z0's dtype for t [B] and motion_frames int64 [B]."""
    z0, eps, t = (x.contiguous() for x in (z0, eps, t))
    out = torch.empty_like(z0)
    if z0.numel() == 0:
        return out
    batch, channels, frames, height, width = z0.shape
    positions = frames * height * width
    with device_context(z0):
        add_noise_fwd[(triton.cdiv(channels * positions, POSITIONS), batch)](
            Z=z0, EPS=eps, T=t, MOTION=motion_frames, OUT=out, C=channels, S=positions, HW=height * width,
            BLOCK=POSITIONS, num_warps=WARPS,
        )  # fmt: skip
    return out


def _chunk(n: int) -> int:
    return min(LARGEST_CHUNK, triton.next_power_of_2(max(n, 16)))
