"""Rates of a timed row against the measured ceilings, and rows as text."""

from __future__ import annotations

from typing import Any


def rates(flops: float, size: float, ms: float, ceilings: dict[str, float]) -> dict[str, Any]:
    """Return the rates of ``flops`` and ``size`` bytes in ``ms`` milliseconds, and the floor of this device."""
    multiply, move = flops / ceilings["matmul_tflops"] / 1e9, size / ceilings["copy_gbs"] / 1e6
    floor = max(multiply, move)
    return {
        "tflops": flops / ms / 1e9,
        "gbs": size / ms / 1e6,
        "bound": "compute" if multiply > move else "memory",
        "floor_ms": floor,
        "of_ceiling": floor / ms,
    }


def rate(row: dict[str, Any]) -> str:
    """Return the limiting rate of a timed row: TFLOP/s where multiplication is the floor, else GB/s."""
    return f"{row['tflops']:.0f} TFLOP/s" if row["bound"] == "compute" else f"{row['gbs']:.0f} GB/s"


def line(row: dict[str, Any]) -> str:
    """Return one row as text."""
    labels = f"{row['kernel']:24s}{row['shape']:18s}{row['mode']:5s}{row['provider']:28s}"
    if row["status"] != "ok":
        error = f"error {row['error']:.1e}  " if "error" in row else ""
        return f"{labels}{row['status']}: {error}{row['reason'][:90]}"
    share = f"{row['of_ceiling']:6.1%} of ceiling  error {row['error']:.1e}"
    return f"{labels}{row['p50_ms']:9.4f} ms {rate(row):>13s} {share}"
