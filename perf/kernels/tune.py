"""`python -m perf tune`: time every configuration of the attention kernels on this GPU, to find the best.

A configuration whose result differs from the reference on sampled rows, or whose gradients differ from the first
configuration's, is reported as wrong and not timed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perf import rows
from perf.environment import environment
from perf.kernels.rates import line, rates
from perf.kernels.run import default_path
from perf.kernels.static_cases import label
from xdub_kernels.attention.configs import KERNELS, Config, choices
from xdub_kernels.testing import relative_error

DIMS = {128: (40_960, 12), 64: (40_960, 12)}
"""Sizes: head dim -> (tokens, heads)."""
TOLERANCE = 0.02
"""Largest relative error of a correct configuration."""
SAFE = Config(128, 64, 8, 3)
"""Configuration of the forward that a backward needs; it builds for every architecture."""


def tune(kernels: list[str], seconds: float) -> list[dict[str, Any]]:
    """Time every configuration of ``kernels`` on this GPU; return their rows."""
    from perf.kernels.ceilings import ceilings as measure
    from perf.kernels.timing import interleaved

    machine, ceilings = environment(), measure()
    major, minor = torch.cuda.get_device_capability()
    measured = []
    for dim, (length, heads) in DIMS.items():
        q, k, v, grad = (
            torch.randn(1, length, heads, dim, device="cuda", dtype=torch.bfloat16) for _ in range(4)
        )
        for kernel in kernels:
            configs = choices(kernel, 10 * major + minor, dim, q.dtype)
            if not configs:
                continue
            launches = {label(c): launch(kernel, c, q, k, v, grad) for c in configs}
            wrong = failures(kernel, launches, q, k, v)
            right = {name: call for name, call in launches.items() if name not in wrong}
            times = interleaved({n: lambda _, c=c: c() for n, c in right.items()}, seconds=seconds)
            flops = 4 * length**2 * heads * dim * (1.0 if kernel == "fwd" else 2.5)
            shared = {
                "schema": rows.SCHEMA, "environment": machine, "ceilings": ceilings, "dtype": "bfloat16",
                "kernel": f"attention_{kernel}", "shape": f"{length} d{dim}", "mode": "tune",
            }  # fmt: skip
            for name, why in wrong.items():
                measured.append({**shared, "provider": name, "status": "wrong", "reason": why})
            for name, t in times.items():
                timed = {
                    "p20_ms": t.p20,
                    "p50_ms": t.p50,
                    "p80_ms": t.p80,
                    "noise": t.noise,
                    "samples": t.samples,
                }
                row = {**shared, "provider": name, "status": "ok", "error": 0.0, **timed}
                measured.append({**row, **rates(flops, 0.0, t.p50, ceilings)})
            for row in measured[-len(launches) :]:
                print(line(row), flush=True)
    return measured


def launch(kernel: str, config: Config, q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> Callable[[], Any]:
    """Return a call with one kernel's configuration; for a backward kernel the call is a whole backward."""
    from xdub_kernels.attention import triton_core

    if kernel == "fwd":
        return lambda: triton_core.forward(q, k, v, config)
    out, lse = triton_core.forward(q, k, v, SAFE)
    return lambda: triton_core.backward(
        grad, q, k, v, out, lse, deterministic=kernel != "bwd_kv_add", configs={kernel: config}
    )


def failures(
    kernel: str, launches: dict[str, Callable[[], Any]], q: Tensor, k: Tensor, v: Tensor
) -> dict[str, str]:
    """Return configuration -> what is wrong with its result."""
    from xdub_kernels import attention

    wrong: dict[str, str] = {}
    first: list[Tensor] | None = None
    sample = torch.linspace(0, q.shape[1] - 1, 37, device=q.device).long()
    exact = attention(q[:, sample].float(), k.float(), v.float(), impl="reference", backend="math")
    for name, call in launches.items():
        try:
            result = list(call())
        # A configuration may be too large or fail to compile, and each is a row.
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        if kernel == "fwd":
            error = relative_error(result[0][:, sample], exact)
        else:
            first = first or result
            error = max(relative_error(a, b) for a, b in zip(result, first, strict=True))
        if not error <= TOLERANCE:
            wrong[name] = f"relative error {error:.2e}"
    return wrong


def add_parser(commands: Any) -> None:
    """Add the command `tune` and its options."""
    parser = commands.add_parser("tune", help="time every configuration of the attention kernels on this GPU")
    parser.add_argument("--kernel", default="", help=f"one of {', '.join(KERNELS)} (default: all)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="longest time for the configurations of one kernel"
    )
    parser.add_argument(
        "--json", type=Path, default=None, help="result file (default beside those of run, -tune)"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    if args.kernel and args.kernel not in KERNELS:
        print(f"--kernel {args.kernel!r}: none of {', '.join(KERNELS)}", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("tune needs a CUDA device: nothing was measured", file=sys.stderr)
        return 2
    measured = tune([args.kernel] if args.kernel else list(KERNELS), args.seconds)
    path = args.json or default_path(measured[0]["environment"]).with_suffix(".tune.jsonl")
    rows.write(path, measured)
    print(path)
    return 0
