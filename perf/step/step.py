"""`python -m perf step`: time and memory of one real training step, beside the plan.

Implementations take turns in one process, on the same weights and the same batch of noise. An implementation that does
not fit or does not compile becomes a row with the reason, and the others continue.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from perf import rows
from perf.environment import environment
from perf.step.bench import (
    IMPLEMENTATIONS,
    Bench,
    Step,
    attention_core,
    chosen,
    obstacle,
    one_rank,
)
from perf.step.case import Case, cases, prediction
from perf.step.figures import compare, figures, line
from perf.step.table import table
from xdub.config import PHASES
from xdub.errors import UserError
from xdub.model.checkpointing import POLICIES
from xdub.plan.gpus import Gpu, gpu_called, known_gpu

TOLERANCE = {"bfloat16": 2e-2, "float32": 1e-3}
"""Largest relative difference of loss and gradient norm from the reference's, by precision."""


class OutOfTime(Exception):
    """Raised when `--minutes` are over."""


def measure(
    chosen_cases: Sequence[Case],
    implementations: Sequence[str],
    *,
    steps: int,
    warmup: int,
    seconds: float,
    gpu: Gpu | None,
    efficiency: float,
    path: Path | None = None,
) -> list[dict[str, Any]]:
    """Measure all cases; print and write every row at once. No step begins after ``seconds``."""
    deadline, measured_rows = time.monotonic() + seconds, list[dict[str, Any]]()
    with one_rank() as context:
        bench = Bench(context)
        shared = _shared(bench.device)
        for case in chosen_cases:
            planned = prediction(case, gpu, efficiency)
            common = {**shared, **case.facts(), "planned": planned}
            for row in _rows(bench, case, implementations, steps, warmup, deadline, planned):
                measured_rows.append({**common, "time": _now(), **row})
                print(line(measured_rows[-1]), flush=True)
            if path is not None:
                rows.write(path, measured_rows)
        bench.discard()
    return measured_rows


def _rows(
    bench: Bench,
    case: Case,
    implementations: Sequence[str],
    steps: int,
    warmup: int,
    deadline: float,
    planned: dict[str, Any],
) -> list[dict[str, Any]]:
    """Return a row for every implementation of a case, without the fields that all share."""
    reasons = {impl: obstacle(impl, case, bench.device) for impl in implementations}
    able = [impl for impl, reason in reasons.items() if reason is None]
    taken, first, failed = compete(bench, case, able, steps=steps, warmup=warmup, deadline=deadline)
    rows_of_case = []
    for impl, reason in reasons.items():
        row: dict[str, Any] = {"provider": impl}
        if reason is not None:
            row |= {"status": "unavailable", "reason": reason}
        elif impl in failed:
            row |= failed[impl]
        else:
            row |= {"status": "ok", "attention_core": attention_core(impl, case, bench.device)}
            row |= {"first_ms": first[impl]} | figures(case, taken[impl], planned, bench.device)
        rows_of_case.append(row)
    compare(rows_of_case, TOLERANCE[case.facts()["dtype"]])
    return rows_of_case


def compete(
    bench: Bench, case: Case, able: Sequence[str], *, steps: int, warmup: int, deadline: float
) -> tuple[dict[str, list[Step]], dict[str, float], dict[str, dict[str, str]]]:
    """Run the steps of all implementations in turns.

    Returns the steps, the ms of each implementation's very first step, and status and reason of those that failed. An
    implementation that fails is dropped, and the others restart with another engine.
    """
    alive, failed = list(able), dict[str, dict[str, str]]()
    while alive:
        taken: dict[str, list[Step]] = {impl: [] for impl in alive}
        first: dict[str, float] = {}
        impl = alive[0]
        try:
            _in_time(deadline)
            bench.prepare(case)
            for impl in alive:
                with chosen(impl, bench.device):
                    for _ in range(warmup):
                        _in_time(deadline)
                        first.setdefault(impl, sum(bench.step().ms))
            for turn in range(steps):
                for impl in alive[turn % len(alive) :] + alive[: turn % len(alive)]:
                    _in_time(deadline)
                    with chosen(impl, bench.device):
                        taken[impl].append(bench.step())
            return taken, first, failed
        except OutOfTime:
            late = {"status": "not-measured", "reason": "--minutes were over"}
            failed |= {name: late for name, steps_of_impl in taken.items() if not steps_of_impl}
            return taken, first, failed
        # Memory, compilers, drivers and kernels may fail, and each failure is a row.
        except Exception as problem:
            failed[impl] = {"status": "failed", "reason": rows.reason(problem)}
        # The exception and the frames that hold the tensors are gone only after the except block.
        alive.remove(impl)
        bench.discard()
    return {}, {}, failed


def _in_time(deadline: float) -> None:
    """Raise `OutOfTime` after the deadline."""
    if time.monotonic() > deadline:
        raise OutOfTime


def _shared(device: torch.device) -> dict[str, Any]:
    """Return the fields of all rows: machine, code and ceilings."""
    ceilings: dict[str, float] = {}
    if device.type == "cuda":
        from perf.kernels.ceilings import ceilings as measured

        ceilings = measured()
    command = " ".join(["python -m perf", *sys.argv[1:]])
    machine = {"device": device.type, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    return {
        "schema": rows.SCHEMA,
        "environment": environment() | machine,
        "ceilings": ceilings,
        "command": command,
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number}: 1 or more")
    return number


def add_parser(commands: Any) -> None:
    """Add the command `step` and its options."""
    parser = commands.add_parser(
        "step", help="one training step: time, memory, MFU, and the plan beside it", description=__doc__
    )
    parser.add_argument("--recipe", default="xdub-1b", help="name or file (default xdub-1b)")
    parser.add_argument("--phase", default="editor", choices=PHASES)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument(
        "--tokens",
        type=_positive,
        nargs="+",
        default=[40_960, 10_240],
        help="approximate tokens of a sample: the recipe's window at the nearest picture size",
    )
    parser.add_argument("--checkpointing", nargs="+", choices=POLICIES, default=["attention", "none", "full"])
    parser.add_argument("--impl", nargs="+", choices=IMPLEMENTATIONS, default=list(IMPLEMENTATIONS))
    parser.add_argument("--compile", choices=("off", "on", "both"), default="off", help="torch.compile")
    parser.add_argument("--micro-batch", type=_positive, default=1, help="samples of the step")
    parser.add_argument(
        "--zero-stage", type=int, choices=(0, 1, 2, 3), default=0, help="ZeRO stage of the one rank"
    )
    parser.add_argument(
        "--steps", type=_positive, default=5, help="timed steps of each implementation (default 5)"
    )
    parser.add_argument("--warmup", type=_positive, default=2, help="steps before the timed ones (default 2)")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin no step later than this")
    parser.add_argument("--gpu", help="GPU whose peak the plan uses (default: this machine's)")
    parser.add_argument(
        "--efficiency", type=float, default=0.4, help="share of the peak that the plan assumes (default 0.4)"
    )
    parser.add_argument(
        "--json", type=Path, help="result file (default perf/results/GPU/DATE-COMMIT.step.jsonl)"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from rich.console import Console

    from perf.kernels.run import default_path

    try:
        gpu = known_gpu(args.gpu) if args.gpu else None
        if gpu is None and torch.cuda.is_available():
            gpu = gpu_called(torch.cuda.get_device_name())
        chosen_cases = list(
            cases(
                args.recipe,
                args.phase,
                tokens=args.tokens,
                policies=args.checkpointing,
                compiled={"off": [False], "on": [True], "both": [False, True]}[args.compile],
                micro_batch=args.micro_batch,
                zero_stage=args.zero_stage,
                overrides=args.set,
            )
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    path = args.json or default_path(environment()).with_suffix(".step.jsonl")
    measured_rows = measure(
        chosen_cases,
        args.impl,
        steps=args.steps,
        warmup=args.warmup,
        seconds=60 * args.minutes,
        gpu=gpu,
        efficiency=args.efficiency,
        path=path,
    )
    Console(width=140 if not sys.stdout.isatty() else None).print(table(measured_rows))
    print(path)
    return (
        1 if any(row["status"] == "wrong" for row in measured_rows) or not rows.measured(measured_rows) else 0
    )
