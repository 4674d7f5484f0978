"""Separable rotation tables: one small array for every axis instead of one row for every token."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def separable_tables(
    grid: tuple[int, int, int],
    reference_frames: int,
    axes_dim: tuple[int, int, int],
    theta: float,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """cos and sin ``[P, D/2]`` fp32 of position p and pair i; the pair decides which axis p is a position on.

    P covers frames, and rows and columns of target and shifted reference: max(f, 2h, 2w) with a reference. At
    64 positions x 64 pairs they are 32 KB that stay in the cache, where a table by token has 21 MB. Angles are
    computed in float64 on the host and rounded once.
    """
    frames, height, width = grid
    beside = 2 if reference_frames else 1
    positions = torch.arange(max(frames, beside * height, beside * width), dtype=torch.float64)
    with torch.inference_mode(False), torch.no_grad():
        frequencies = torch.cat(
            [theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / max(dim, 1)) for dim in axes_dim]
        )
        angles = torch.outer(positions, frequencies)
        return angles.cos().float().to(device), angles.sin().float().to(device)
