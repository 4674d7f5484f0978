"""Separable rotation tables: one small array for every axis instead of one row for every token."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from xdub_kernels.rope import Rope


@lru_cache(maxsize=64)
def separable_tables(rope: Rope, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cos and sin ``[P, D/2]`` fp32 of position p and pair i; the pair decides which axis p is a position on.

    P covers frames, and rows and columns of target and shifted reference: max(f, 2h, 2w) with a reference. At
    64 positions x 64 pairs the tables have 32 KB and stay in the cache, where a table by token has 21 MB. Angles are
    computed in float64 on the host and rounded once.
    """
    frames, height, width = rope.grid
    sides = 2 if rope.reference_frames else 1
    positions = torch.arange(max(frames, sides * height, sides * width), dtype=torch.float64)
    with torch.inference_mode(False), torch.no_grad():
        frequencies = torch.cat(
            [
                rope.theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / max(dim, 1))
                for dim in rope.axes(head_dim)
            ]
        )
        angles = torch.outer(positions, frequencies)
        return angles.cos().float().to(device), angles.sin().float().to(device)
