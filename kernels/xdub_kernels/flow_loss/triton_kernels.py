"""Noising, and the weighted flow-matching loss with its gradient in one pass over memory.

A program owns a block of places (frame, row, column) of one sample and walks over the channels, so that the two masks
are read once and not once per channel. It writes the gradient and one partial sum; a second, tiny kernel adds the
partial sums up in a fixed order. Nothing is added with atomics: the same inputs give the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xdub_kernels.triton_common import device_context, narrow

PLACES = 1024
WARPS = 4
SUMS_AT_ONCE = 1024


@triton.jit
def flow_loss_fwd(
    V, Z, EPS, FACE, LIP, MOTION, DV, PARTIAL,
    C, S, HW, face_weight, lip_weight,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of places, B). V, Z, EPS, DV [B, C, S]; masks [B, S]; PARTIAL [B, blocks] fp32.

    DV is weight x difference: of order one, so that fp16 holds it. What divides by the number of elements comes later.
    """
    b = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < S
    counts = inside & (place // HW >= tl.load(MOTION + b))
    face = tl.load(FACE + b * S + place, mask=counts, other=0.0).to(tl.float32)
    lip = tl.load(LIP + b * S + place, mask=counts, other=0.0).to(tl.float32)
    weight = 1.0 + face_weight * face + lip_weight * lip
    total = tl.zeros((BLOCK,), tl.float32)
    for channel in range(0, C):
        at = (b * C + channel) * S + place
        v = tl.load(V + at, mask=counts, other=0.0).to(tl.float32)
        z = tl.load(Z + at, mask=counts, other=0.0).to(tl.float32)
        eps = tl.load(EPS + at, mask=counts, other=0.0).to(tl.float32)
        difference = v - (eps - z)
        weighted = weight * difference
        total += weighted * difference
        tl.store(DV + at, narrow(weighted, DV.dtype.element_ty), mask=inside)
    tl.store(PARTIAL + b * tl.num_programs(0) + tl.program_id(0), tl.sum(total, 0))


@triton.jit
def flow_loss_sums(PARTIAL, MOTION, SUMS, NUMBERS, blocks, C, S, HW, CHUNK: tl.constexpr):
    """Grid (B,): SUMS [B] fp32, a sample's partial sums added up in one order, and NUMBERS [B] int64."""
    b = tl.program_id(0)
    total = tl.zeros((CHUNK,), tl.float32)
    for start in range(0, blocks, CHUNK):
        block = start + tl.arange(0, CHUNK)
        total += tl.load(PARTIAL + b * blocks + block, mask=block < blocks, other=0.0)
    tl.store(SUMS + b, tl.sum(total, 0))
    frames = S // HW - tl.load(MOTION + b)
    tl.store(NUMBERS + b, frames.to(tl.int64) * C * HW)


@triton.jit
def flow_loss_mean(SUMS, NUMBERS, LOSS, PER_ELEMENT, B, CHUNK: tl.constexpr):
    """Grid (1,): LOSS [] = mean of the samples' means; PER_ELEMENT [B] = 2 / (B number), the gradient's factor."""
    total = tl.zeros((CHUNK,), tl.float32)
    for start in range(0, B, CHUNK):
        sample = start + tl.arange(0, CHUNK)
        there = sample < B
        number = tl.maximum(tl.load(NUMBERS + sample, mask=there, other=1), 1).to(tl.float32)
        total += tl.load(SUMS + sample, mask=there, other=0.0) / number
        tl.store(PER_ELEMENT + sample, 2.0 / (number * B), mask=there)
    tl.store(LOSS, tl.sum(total, 0) / B)


@triton.jit
def add_noise_fwd(Z, EPS, T, MOTION, OUT, C, S, HW, BLOCK: tl.constexpr):
    """Grid (blocks of C * S, B): (1 - t) z + t eps, and z itself in the motion frames."""
    b = tl.program_id(1).to(tl.int64)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = element < C * S
    noisy = (element % S) // HW >= tl.load(MOTION + b)
    t = tl.load(T + b).to(tl.float32)
    at = b * C * S + element
    z = tl.load(Z + at, mask=inside, other=0.0)
    # Motion frames are read, too, and not used: a mask that follows frames would break loads into pieces of 2 bytes.
    eps = tl.load(EPS + at, mask=inside, other=0.0).to(tl.float32)
    blend = narrow((1.0 - t) * z.to(tl.float32) + t * eps, OUT.dtype.element_ty)
    tl.store(OUT + at, tl.where(noisy, blend, z), mask=inside)


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
    """Loss [], sums [B], numbers [B] int64; weight x difference in v_hat's dtype and its factor [B] to the gradient.

    motion_frames int64 [B].
    """
    v_hat, z0, eps, face_mask, lip_mask = (x.contiguous() for x in (v_hat, z0, eps, face_mask, lip_mask))
    batch, channels, frames, height, width = v_hat.shape
    places = frames * height * width
    blocks = triton.cdiv(places, PLACES)
    weighted = torch.empty_like(v_hat)
    loss = torch.empty((), dtype=torch.float32, device=v_hat.device)
    sums, per_element = (torch.empty(batch, dtype=torch.float32, device=v_hat.device) for _ in range(2))
    numbers = torch.empty(batch, dtype=torch.int64, device=v_hat.device)
    if v_hat.numel() == 0:
        return loss.zero_(), sums.zero_(), numbers.zero_(), weighted, per_element.zero_()
    partial = torch.empty(batch, blocks, dtype=torch.float32, device=v_hat.device)
    sizes = (channels, places, height * width)
    with device_context(v_hat):
        flow_loss_fwd[(blocks, batch)](
            v_hat, z0, eps, face_mask, lip_mask, motion_frames, weighted, partial,
            *sizes, face_weight, lip_weight, BLOCK=PLACES, num_warps=WARPS,
        )  # fmt: skip
        flow_loss_sums[(batch,)](partial, motion_frames, sums, numbers, blocks, *sizes, CHUNK=_chunk(blocks))
        flow_loss_mean[(1,)](sums, numbers, loss, per_element, batch, CHUNK=_chunk(batch))
    return loss, sums, numbers, weighted, per_element


def add_noise(z0: Tensor, eps: Tensor, t: Tensor, motion_frames: Tensor) -> Tensor:
    """z_t [B, C, f, h, w] in z0's dtype; t [B], motion_frames int64 [B]."""
    z0, eps, t = (x.contiguous() for x in (z0, eps, t))
    out = torch.empty_like(z0)
    if z0.numel() == 0:
        return out
    batch, channels, frames, height, width = z0.shape
    places = frames * height * width
    with device_context(z0):
        add_noise_fwd[(triton.cdiv(channels * places, PLACES), batch)](
            z0, eps, t, motion_frames, out, channels, places, height * width, BLOCK=PLACES, num_warps=WARPS
        )
    return out


def _chunk(n: int) -> int:
    return min(SUMS_AT_ONCE, triton.next_power_of_2(max(n, 16)))
