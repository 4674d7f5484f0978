"""Measured ceilings of this device: every figure is compared with them, not with a data sheet."""

from __future__ import annotations

import torch

from perf.kernels.timing import interleaved

COPY_BYTES = 1 << 30
"""Size of the copied tensor."""
MATMUL_SIDE = 8192
"""Rows and columns of the multiplied matrices."""


def ceilings() -> dict[str, float]:
    """Measure ``copy_gbs``, read + write of a large copy, and ``matmul_tflops``, bf16 product of random matrices."""
    source = torch.empty(COPY_BYTES // 2, dtype=torch.bfloat16, device="cuda").normal_()
    target = torch.empty_like(source)
    a, b = (torch.randn(MATMUL_SIDE, MATMUL_SIDE, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    out = torch.empty_like(a)
    times = interleaved(
        {"copy": lambda _: target.copy_(source), "matmul": lambda _: torch.mm(a, b, out=out)}, seconds=4.0
    )
    return {
        "copy_gbs": 2 * COPY_BYTES / times["copy"].p50 / 1e6,
        "matmul_tflops": 2 * MATMUL_SIDE**3 / times["matmul"].p50 / 1e9,
    }
