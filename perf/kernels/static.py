"""`python -m perf static`: build and check every kernel for A100 and H100/H200 without a GPU.

A kernel must compile, fit shared memory, spill nothing inside a loop, use the tensor cores and asynchronous copies of
its architecture where it multiplies, and 16-byte accesses where it is bound by memory. Its innermost loop must not be
more than 5 % longer than in the stored baseline of the same Triton version.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from perf.kernels.static_build import SHARED_LIMIT, Built, build
from perf.kernels.static_cases import Case, cases
from xdub_kernels import dispatch

BASELINE = Path(__file__).parent / "static_baseline.json"
"""Figures of every case, by Triton version."""
GROWTH = 1.05
"""Largest length of a loop, relative to the baseline's."""
STACK_LIMIT = 512
"""Largest stack in bytes: a few registers saved outside of loops are harmless."""


def judge(case: Case, architecture: int, built: Built) -> list[str]:
    """Return the rules that a build breaks."""
    counts = built.instructions
    wrong = []
    if built.shared > SHARED_LIMIT[architecture]:
        wrong.append(f"{built.shared} B of shared memory, {SHARED_LIMIT[architecture]} fit")
    if built.loop_spills:
        wrong.append(f"{built.loop_spills} spills in a loop")
    if built.stack > STACK_LIMIT:
        wrong.append(f"{built.stack} B of stack, at most {STACK_LIMIT}")
    if case.matmul:
        wide = architecture >= 90 and case.wide
        if wide and not counts.get("wgmma"):
            wrong.append("no wgmma")
        if not wide and not (counts.get("mma") or counts.get("wgmma")):
            wrong.append("no mma.sync")
        if case.pipelined and architecture < 90 and not counts.get("cp.async"):
            wrong.append("no cp.async")
    if case.tma and not counts.get("tma"):
        wrong.append("no TMA load")
    if case.specialised and not counts.get("setmaxnreg"):
        wrong.append("no warp specialisation")
    if case.memory_bound:
        narrow = counts.get("load16", 0) + counts.get("store16", 0)
        if narrow:
            wrong.append(f"{narrow} accesses of 2 bytes")
        if not (counts.get("load128") or counts.get("cp.async")) or not counts.get("store128"):
            wrong.append("no accesses of 16 bytes")
    return wrong


def against_baseline(row: dict[str, Any], earlier: dict[str, Any] | None) -> list[str]:
    """Return what got worse since the baseline's row of the same case and architecture."""
    if earlier is None:
        return ["not in the baseline; run with --update"]
    limit = earlier["loop_instructions"] * GROWTH
    if row["loop_instructions"] > limit:
        return [f"loop grew from {earlier['loop_instructions']} to {row['loop_instructions']} instructions"]
    return []


def build_one(architecture: int, index: int) -> dict[str, Any] | str:
    """Build case number ``index``, in a process of its own; return its figures, or why it does not compile."""
    case = list(cases(architecture))[index]
    try:
        return build(architecture, case.launch)[case.kernel].to_dict()
    # A compiler fails in many ways, and each is a row.
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__} {reason[0]}"


def run(
    architectures: Sequence[int],
    *,
    only: str = "",
    update: bool = False,
    jobs: int = 1,
    baseline: Path = BASELINE,
) -> int:
    """Build the selected cases and print their table; return the number of failures."""
    import triton

    stored = json.loads(baseline.read_text("utf-8")) if baseline.is_file() else {}
    earlier = stored.get(triton.__version__)
    rows: dict[str, dict[str, Any]] = {}
    failures = 0
    started = time.monotonic()
    print(f"triton {triton.__version__}; shared memory in KB; counts of instructions that matter")
    print(
        f"{'arch':6s}{'kernel':64s}{'regs':>4s}{'stack':>6s}{'smem':>6s}{'loop':>6s}{'spill':>6s}  instructions"
    )
    chosen = [
        (architecture, index, case)
        for architecture in architectures
        for index, case in enumerate(cases(architecture))
        if re.search(only, case.name)
    ]
    with _builders(jobs) as build_all:
        results = build_all(build_one, [c[0] for c in chosen], [c[1] for c in chosen])
        for (architecture, _, case), result in zip(chosen, results, strict=True):
            name = f"sm_{architecture} {case.name}"
            if isinstance(result, str):
                failures += 1
                print(f"{name:70s}\n  FAIL {case.name}: does not compile: {result}", flush=True)
                continue
            built = Built(**result)
            wrong = judge(case, architecture, built)
            if earlier is not None and not update:
                wrong += against_baseline(result, earlier.get(name))
            rows[name] = result
            print(line(name, built), flush=True)
            if wrong:
                failures += 1
                print(f"  FAIL {case.name}: {'; '.join(wrong)}", flush=True)
    if update and not failures and not only:
        stored[triton.__version__] = rows
        baseline.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", "utf-8")
        print(f"wrote {len(rows)} rows to {baseline}")
    elif earlier is None:
        print(f"no baseline for triton {triton.__version__}: only the hard rules were checked")
    print(f"{len(chosen)} kernels, {failures} failures, {time.monotonic() - started:.0f} s")
    return failures


def line(name: str, built: Built) -> str:
    """Return one line of the table."""
    counts = " ".join(f"{instruction}:{n}" for instruction, n in built.instructions.items())
    numbers = f"{built.registers:4d}{built.stack:6d}{built.shared / 1024:6.0f}{built.loop_instructions:6d}"
    return f"{name:70s}{numbers}{built.loop_spills:6d}  {counts}"


@contextmanager
def _builders(jobs: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Yield `map`, in this process or over several."""
    if jobs == 1:
        yield map
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield pool.map


def add_parser(commands: Any) -> None:
    """Add the command `static` and its options."""
    parser = commands.add_parser(
        "static", help="build every kernel for A100 and H100/H200 and judge the machine code"
    )
    parser.add_argument("--arch", default="80,90", help="architectures, comma separated (default 80,90)")
    parser.add_argument(
        "--only", default="", help="build only cases whose name matches this regular expression"
    )
    parser.add_argument("--update", action="store_true", help="store what was built as the new baseline")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    architectures = [int(text) for text in args.arch.split(",")]
    unknown = [a for a in architectures if a not in SHARED_LIMIT]
    if unknown:
        print(
            f"--arch: {unknown[0]} is unknown, choose among {', '.join(map(str, SHARED_LIMIT))}",
            file=sys.stderr,
        )
        return 2
    if dispatch.INTERPRETING:
        print("TRITON_INTERPRET is set, so nothing would be compiled: unset it", file=sys.stderr)
        return 2
    failures = run(architectures, only=args.only, update=args.update, jobs=args.jobs)
    return 1 if failures else 0
