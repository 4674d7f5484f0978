"""Figures of the steps of one case, and their comparison with the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from perf.environment import clock_mhz
from perf.kernels.timing import summary
from perf.step.bench import PARTS, Step
from perf.step.case import Case
from xdub.plan.gpus import gpu_called


def figures(case: Case, taken: list[Step], planned: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the figures of one implementation's steps."""
    times = summary([sum(step.ms) for step in taken])
    seconds = times.p50 / 1e3
    peak_gpu = gpu_called(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    # FLOP that the GPU could do in the time of a step.
    peak = peak_gpu.tflops * 1e12 * seconds if peak_gpu else None
    total_flops = sum(planned["flops"].values())
    return {
        "p20_ms": times.p20,
        "p50_ms": times.p50,
        "p80_ms": times.p80,
        "noise": times.noise,
        "samples": times.samples,
        "parts_ms": dict(zip(PARTS, np.median([step.ms for step in taken], axis=0).tolist(), strict=True)),
        "tokens_per_s": case.batch * case.tokens / seconds,
        "tflops": planned["model_flops"] / seconds / 1e12,
        "mfu": planned["model_flops"] / peak if peak else None,
        # `xdub plan --efficiency` assumes this share.
        "efficiency": total_flops / peak if peak else None,
        "peak_bytes": max((step.peak_bytes for step in taken if step.peak_bytes is not None), default=None),
        "sm_mhz": clock_mhz(),
        "loss": taken[-1].loss,
        "grad_norm": taken[-1].grad_norm,
    }


def compare(rows_of_case: list[dict[str, Any]], tolerance: float) -> None:
    """Add error and speed-up against the reference; a row that computes something else gets the status "wrong"."""
    base = next(
        (row for row in rows_of_case if row["provider"] == "reference" and row["status"] == "ok"), None
    )
    for row in rows_of_case:
        if base is None or row["status"] != "ok":
            continue
        row["error"] = max(abs(row[name] / base[name] - 1) for name in ("loss", "grad_norm"))
        row["times_reference"] = base["p50_ms"] / row["p50_ms"]
        if not row["error"] <= tolerance:
            row |= {
                "status": "wrong",
                "reason": f"loss or gradient norm is off by {row['error']:.1e} from the reference's",
            }


def line(row: dict[str, Any]) -> str:
    """Return one row as text."""
    labels = f"{row['shape']:34s}{row['mode']:20s}{row['provider']:11s}"
    if row["status"] != "ok":
        return f"{labels}{row['status']}: {row['reason'][:110]}"
    parts = " + ".join(f"{name} {row['parts_ms'][name]:.1f}" for name in PARTS)
    share = "" if row["mfu"] is None else f"  MFU {row['mfu']:.1%}"
    return f"{labels}{row['p50_ms']:10.1f} ms ({parts}){share}"
