"""`python -m perf run`: check, then time kernels; write one row for every kernel, size, mode and competitor.

Without a GPU every row has the status "not-measured" and the reason; with TRITON_INTERPRET=1 tiny
sizes are checked on the CPU, still without a time.
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perf import rows
from perf.environment import clock_mhz, environment
from perf.kernels import gate
from perf.kernels.ops import Bench, Provider, benches
from perf.kernels.rates import line, rates
from xdub_kernels import dispatch
from xdub_kernels.dispatch import UnavailableError

SETS_BEYOND_L2 = 2.5
"""Size of all input sets together, relative to the L2 cache."""
MOST_SETS = 16
"""Largest number of input sets."""


def run(
    chosen: list[Bench],
    *,
    dtype: torch.dtype = torch.bfloat16,
    seconds: float = 3.0,
    only_checks: bool = False,
    path: Path | None = None,
) -> list[dict[str, Any]]:
    """Return all rows of the chosen benches; print each at once, and update ``path`` after every bench."""
    machine = environment()
    common = {"schema": rows.SCHEMA, "environment": machine, "dtype": str(dtype).removeprefix("torch.")}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reason = None
    if device == "cpu" and not dispatch.INTERPRETING:
        reason = "no CUDA device"
    ceilings: dict[str, float] = {}
    if device == "cuda" and not only_checks:
        from perf.kernels.ceilings import ceilings as measure

        ceilings = measure()
        print(
            f"ceilings: copy {ceilings['copy_gbs']:.0f} GB/s, matmul {ceilings['matmul_tflops']:.0f} TFLOP/s"
        )
    common["ceilings"] = ceilings
    measured: list[dict[str, Any]] = []
    for bench in chosen:
        for row in _bench(bench, device, dtype, reason, seconds, only_checks):
            row = {**common, "time": _now(), "kernel": bench.kernel, "shape": bench.shape, **row}
            row.update(_judged(bench, row, ceilings))
            measured.append(row)
            print(line(row), flush=True)
        if path is not None:
            rows.write(path, measured)
    return measured


def _bench(
    bench: Bench, device: str, dtype: torch.dtype, reason: str | None, seconds: float, only_checks: bool
) -> list[dict[str, Any]]:
    """Return the rows of one bench, without the fields that all rows share."""
    if reason is not None:
        return [
            {"provider": name, "mode": mode, "status": "not-measured", "reason": reason}
            for name in bench.providers
            for mode in bench.bytes
        ]
    inputs = bench.make(0, dtype, device)
    results: list[dict[str, Any]] = []
    right: dict[str, dict[str, Any]] = {}
    for name, provider in bench.providers.items():
        try:
            error = gate.check(bench, provider, inputs)
        # Compilers, drivers and kernels fail in many ways, and each is a row.
        except Exception as problem:
            excused = isinstance(problem, UnavailableError) or not name.startswith("xdub")
            results += _failed(bench, [name], problem, "unavailable" if excused else "wrong")
            continue
        right[name] = {"provider": name, "error": error}
    if device == "cpu" or only_checks:
        why = "checked only" if only_checks else "no CUDA device; checked in the interpreter"
        return results + [
            {**row, "mode": m, "status": "not-measured", "reason": why}
            for row in right.values()
            for m in bench.bytes
        ]
    try:
        return results + _time(bench, inputs, right, dtype, seconds)
    except Exception as problem:
        return results + _failed(bench, list(right), problem, "failed")


def _failed(bench: Bench, names: list[str], problem: Exception, status: str) -> list[dict[str, Any]]:
    """Return rows with the reason instead of a time."""
    if isinstance(problem, gate.Wrong):
        status = "wrong"
    why = rows.reason(problem)
    return [{"provider": n, "mode": m, "status": status, "reason": why} for n in names for m in bench.bytes]


def _time(
    bench: Bench, inputs: list[Tensor], right: dict[str, dict[str, Any]], dtype: torch.dtype, seconds: float
) -> list[dict[str, Any]]:
    """Time the correct providers in turns on the same inputs; return their rows."""
    from perf.kernels.timing import interleaved, peak_bytes

    size = sum(x.numel() * x.element_size() for x in inputs)
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    sets = [inputs] + [
        bench.make(100 * i, dtype, "cuda")
        for i in range(1, min(MOST_SETS, max(1, math.ceil(SETS_BEYOND_L2 * l2 / size))))
    ]
    timed = []
    for mode in bench.bytes:
        calls = {name: _call(bench, bench.providers[name], sets, mode) for name in right}
        peaks = {name: peak_bytes(call) for name, call in calls.items()}
        per_call = 1
        recorded = dict.fromkeys(calls, "events")
        if bench.small:
            per_call = len(sets)
            calls, recorded = _graphs(calls, len(sets))
        times = interleaved(calls, seconds=seconds)
        for name, t in times.items():
            timed.append(
                {
                    **right[name],
                    "mode": mode,
                    "status": "ok",
                    "p20_ms": t.p20 / per_call,
                    "p50_ms": t.p50 / per_call,
                    "p80_ms": t.p80 / per_call,
                    "noise": t.noise,
                    "samples": t.samples,
                    "timed_with": recorded[name],
                    "peak_bytes": peaks[name],
                    "sm_mhz": clock_mhz(),
                }
            )
    return timed


def _call(bench: Bench, provider: Provider, sets: list[list[Tensor]], mode: str) -> Callable[[int], object]:
    """Return a function that runs the mode on input set number n (modulo their count)."""
    if mode == "fwd":

        def forward(n: int) -> object:
            with torch.no_grad():
                return provider(*sets[n % len(sets)])

        return forward
    from perf.kernels.timing import recording_stream

    def prepare(inputs: list[Tensor]):
        leaves = gate.differentiable(inputs, bench.trained)
        outs = gate.outputs(provider(*leaves))
        return outs, leaves[: bench.trained], gate.output_gradients(outs)

    if mode == "full":

        def full(n: int) -> object:
            return torch.autograd.grad(*prepare(sets[n % len(sets)]))

        return full
    stream = recording_stream() if bench.small else torch.cuda.current_stream()
    with torch.cuda.stream(stream):
        prepared = [prepare(inputs) for inputs in sets]
    torch.cuda.synchronize()

    def backward(n: int) -> object:
        outs, leaves, gradients = prepared[n % len(prepared)]
        return torch.autograd.grad(outs, leaves, gradients, retain_graph=True)

    return backward


def _graphs(
    calls: dict[str, Callable[[int], object]], sets: int
) -> tuple[dict[str, Callable[[int], object]], dict[str, str]]:
    """Record every call as a CUDA graph over all sets; a call that cannot be recorded runs the sets one by one."""
    from perf.kernels.timing import graphed

    def in_turn(call: Callable[[int], object]) -> Callable[[int], object]:
        return lambda _: [call(n) for n in range(sets)]

    replays: dict[str, Callable[[int], object]] = {}
    recorded: dict[str, str] = {}
    for name, call in calls.items():
        try:
            replays[name], recorded[name] = graphed(call, sets), "graph"
        except RuntimeError:
            replays[name], recorded[name] = in_turn(call), "events"
    return replays, recorded


def _judged(bench: Bench, row: dict[str, Any], ceilings: dict[str, float]) -> dict[str, Any]:
    """Return TFLOP/s, GB/s and the share of the measured ceiling for a timed row."""
    if row["status"] != "ok":
        return {}
    mode = row["mode"]
    return rates(bench.flops.get(mode, 0.0), bench.bytes[mode], row["p50_ms"], ceilings)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def default_path(machine: dict[str, Any]) -> Path:
    """Return perf/results/<gpu>/<date>-<time>-<commit>.jsonl."""
    gpu = (machine["gpu"] or "no-gpu").lower().replace(" ", "-")
    return rows.RESULTS / gpu / f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}-{machine['commit']}.jsonl"


def add_parser(commands: Any) -> None:
    """Add the command `run` and its options."""
    parser = commands.add_parser("run", help="check, then time kernels and their competitors on this GPU")
    parser.add_argument(
        "--all", action="store_true", help="every kernel at real sizes and the sweep (under 8 minutes)"
    )
    parser.add_argument("--kernel", default="", help="only kernels whose name contains this text")
    parser.add_argument(
        "--shape",
        default="real",
        choices=("real", "sweep", "tiny"),
        help="sizes (default: those of the 1B recipe)",
    )
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="longest time for all competitors of one row"
    )
    parser.add_argument("--check", action="store_true", help="only check results, time nothing")
    parser.add_argument(
        "--json", type=Path, default=None, help="result file (default perf/results/GPU/DATE-COMMIT.jsonl)"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    interpreted = not torch.cuda.is_available() and dispatch.INTERPRETING
    if interpreted and args.shape != "tiny":
        print("the interpreter is for --shape tiny; larger sizes would take hours", file=sys.stderr)
        return 2
    shapes = ["real", "sweep"] if args.all and args.shape != "tiny" else [args.shape]
    chosen = [bench for bench in benches(shapes) if args.kernel in bench.kernel]
    if not chosen:
        names = ", ".join(sorted({bench.kernel for bench in benches(shapes)}))
        print(f"--kernel {args.kernel!r}: none of {names}", file=sys.stderr)
        return 2
    started = time.monotonic()
    path = args.json or (None if args.check else default_path(environment()))
    # Every size is compiled separately. In the interpreter competitors are checked, too, without compiling, because
    # compiling them for the CPU proves nothing.
    compiler = torch._dynamo.config.patch(recompile_limit=64, disable=interpreted)
    # A backward that frees its buffers could not be timed repeatedly.
    with compiler, torch._functorch.config.patch(donated_buffer=False):
        measured = run(chosen, seconds=args.seconds, only_checks=args.check, path=path)
    count = {
        s: sum(row["status"] == s for row in measured)
        for s in ("ok", "not-measured", "unavailable", "failed", "wrong")
    }
    summary = ", ".join(f"{n} {status}" for status, n in count.items() if n)
    print(f"{summary}; {time.monotonic() - started:.0f} s; {path or 'nothing written'}")
    return 1 if count["wrong"] or count["failed"] else 0
