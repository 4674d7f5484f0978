"""Tile sizes of the attention kernels: the choices for each GPU. The first of each list is used.

`python -m perf static` builds every entry for its architecture and fails on one that spills in its loop or does not fit
shared memory; `python -m perf tune` times them all. None has been timed yet, so plain kernels lead, and those with TMA
and specialised warps come last: only a GPU can prove them right.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Config(NamedTuple):
    """One way to launch a kernel."""

    queries: int
    """Queries of a tile, BQ."""
    keys: int
    """Keys of a tile, BK."""
    warps: int
    stages: int
    """Depth of the software pipeline."""
    tma: bool = False
    """Keys and values through the tensor memory accelerator (sm_90; needs D = a power of two)."""
    specialise: bool = False
    """One warp group loads while the others multiply (sm_90, with tma and 4 warps)."""


KERNELS = ("fwd", "bwd_kv", "bwd_kv_add", "bwd_q")
"""Forward; backward for keys and values; the same kernel adding up dq, too; backward for queries."""

HALF = {
    (90, 128): {
        "fwd": [Config(128, 128, 8, 2), Config(128, 64, 8, 3), Config(128, 128, 8, 2, True),
                Config(128, 128, 4, 2, True, True), Config(128, 64, 4, 3, True, True)],
        "bwd_kv": [Config(32, 128, 8, 2), Config(64, 64, 8, 2)],
        "bwd_kv_add": [Config(64, 64, 8, 2), Config(32, 128, 8, 2), Config(64, 64, 8, 2, True)],
        "bwd_q": [Config(128, 64, 8, 2), Config(128, 64, 8, 3)],
    },
    (90, 64): {
        "fwd": [Config(128, 128, 8, 2), Config(128, 64, 4, 3), Config(128, 128, 4, 2, True, True)],
        "bwd_kv": [Config(64, 128, 8, 2), Config(64, 64, 4, 2)],
        "bwd_kv_add": [Config(64, 128, 8, 2), Config(64, 64, 4, 2)],
        "bwd_q": [Config(128, 64, 8, 2), Config(64, 64, 4, 2)],
    },
    (80, 128): {
        "fwd": [Config(128, 64, 8, 3), Config(128, 64, 8, 2), Config(64, 64, 4, 2)],
        "bwd_kv": [Config(64, 64, 8, 2), Config(32, 128, 8, 2)],
        "bwd_kv_add": [Config(64, 64, 8, 2), Config(32, 64, 4, 2)],
        "bwd_q": [Config(64, 64, 4, 2), Config(128, 64, 8, 2)],
    },
    (80, 64): {
        "fwd": [Config(128, 64, 4, 3), Config(128, 64, 8, 3), Config(128, 128, 8, 2)],
        "bwd_kv": [Config(64, 128, 8, 2), Config(64, 64, 4, 2)],
        "bwd_kv_add": [Config(64, 64, 4, 2), Config(64, 128, 8, 2)],
        "bwd_q": [Config(128, 64, 8, 2), Config(64, 64, 4, 2)],
    },
}  # fmt: skip
"""Choices for bf16 and fp16: (architecture, padded head dim) -> kernel -> configurations."""
LARGE_HEAD = {"fwd": [Config(64, 32, 4, 2)], "bwd_kv": [Config(32, 32, 4, 1)], "bwd_kv_add": [],
              "bwd_q": [Config(64, 32, 4, 2)]}  # fmt: skip
"""Choices for head dims from 129 to 256 in bf16 and fp16. A fifth product does not fit: backward is deterministic."""
SINGLE = {"fwd": [Config(32, 32, 4, 2)], "bwd_kv": [Config(32, 32, 8, 1)], "bwd_kv_add": [],
          "bwd_q": [Config(32, 32, 8, 1)]}  # fmt: skip
"""Choices for fp32 and head dims up to 128, with deterministic backward, too."""
INTERPRETED = [Config(32, 16, 4, 1)]
"""Choice in Triton's interpreter."""


def choices(kernel: str, architecture: int, padded_dim: int, dtype: torch.dtype) -> list[Config]:
    """Return the configurations of ``kernel`` that may run, best first; none where the kernel is not offered.

    ``architecture``: 80, 90, or 0 in the interpreter.
    """
    if architecture == 0:
        return INTERPRETED
    if dtype == torch.float32:
        return SINGLE[kernel]
    if padded_dim > 128:
        return LARGE_HEAD[kernel]
    return HALF[architecture, max(64, padded_dim)][kernel]


def largest_head_dim(dtype: torch.dtype) -> int:
    """Return the largest number of channels per head that the kernels support."""
    return 128 if dtype == torch.float32 else 256
