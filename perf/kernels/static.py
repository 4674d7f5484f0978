"""`python -m perf static`: every kernel that may be launched on an A100 or H100/H200, built and judged without a GPU.

Hard rules: it compiles, fits shared memory, spills nothing inside a loop, uses the tensor cores and asynchronous copies
of its architecture where it multiplies, and 16-byte accesses where it is bound by memory. Against the stored
baseline of the same Triton version, an innermost loop must not have grown by more than 5 %.
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
GROWTH = 1.05
STACK_LIMIT = 512
"""Bytes: a few registers saved outside of loops are harmless."""


def judge(case: Case, architecture: int, built: Built) -> list[str]:
    """What is wrong with a build; empty if nothing is."""
    seen = built.instructions
    wrong = []
    if built.shared > SHARED_LIMIT[architecture]:
        wrong.append(f"{built.shared} B of shared memory, {SHARED_LIMIT[architecture]} fit")
    if built.loop_spills:
        wrong.append(f"{built.loop_spills} spills in a loop")
    if built.stack > STACK_LIMIT:
        wrong.append(f"{built.stack} B of stack, at most {STACK_LIMIT}")
    if case.matmul:
        wide = architecture >= 90 and case.wide
        if wide and not seen.get("wgmma"):
            wrong.append("no wgmma")
        if not wide and not (seen.get("mma") or seen.get("wgmma")):
            wrong.append("no mma.sync")
        if case.pipelined and architecture < 90 and not seen.get("cp.async"):
            wrong.append("no cp.async")
    if case.tma and not seen.get("tma"):
        wrong.append("no TMA load")
    if case.specialised and not seen.get("setmaxnreg"):
        wrong.append("no warp specialisation")
    if case.memory_bound:
        narrow = seen.get("load16", 0) + seen.get("store16", 0)
        if narrow:
            wrong.append(f"{narrow} accesses of 2 bytes")
        if not (seen.get("load128") or seen.get("cp.async")) or not seen.get("store128"):
            wrong.append("no accesses of 16 bytes")
    return wrong


def against_baseline(row: dict[str, Any], known: dict[str, Any] | None) -> list[str]:
    """What got worse since the baseline's row for the same case and architecture."""
    if known is None:
        return ["not in the baseline; run with --update"]
    limit = known["loop_instructions"] * GROWTH
    if row["loop_instructions"] > limit:
        return [f"loop grew from {known['loop_instructions']} to {row['loop_instructions']} instructions"]
    return []


def build_one(architecture: int, index: int) -> dict[str, Any] | str:
    """What was built of case number ``index``, or why it could not be. Runs in a process of its own."""
    case = list(cases(architecture))[index]
    try:
        return build(architecture, case.launch)[case.kernel].to_dict()
    except Exception as error:  # a compiler fails in many ways, and each is a row
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
    """Build, print the table, return the number of failures."""
    import triton

    stored = json.loads(baseline.read_text("utf-8")) if baseline.is_file() else {}
    known = stored.get(triton.__version__)
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
        for (architecture, _, case), found in zip(chosen, results, strict=True):
            name = f"sm_{architecture} {case.name}"
            if isinstance(found, str):
                failures += 1
                print(f"{name:70s}\n  FAIL {case.name}: does not compile: {found}", flush=True)
                continue
            built = Built(**found)
            wrong = judge(case, architecture, built)
            if known is not None and not update:
                wrong += against_baseline(found, known.get(name))
            rows[name] = found
            print(line(name, built), flush=True)
            if wrong:
                failures += 1
                print(f"  FAIL {case.name}: {'; '.join(wrong)}", flush=True)
    if update and not failures and not only:
        stored[triton.__version__] = rows
        baseline.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", "utf-8")
        print(f"wrote {len(rows)} rows to {baseline}")
    elif known is None:
        print(f"no baseline for triton {triton.__version__}: only the hard rules were checked")
    print(f"{len(chosen)} kernels, {failures} failures, {time.monotonic() - started:.0f} s")
    return failures


def line(name: str, built: Built) -> str:
    """One row of the table."""
    counts = " ".join(f"{what}:{n}" for what, n in built.instructions.items())
    numbers = f"{built.registers:4d}{built.stack:6d}{built.shared / 1024:6.0f}{built.loop_instructions:6d}"
    return f"{name:70s}{numbers}{built.loop_spills:6d}  {counts}"


@contextmanager
def _builders(jobs: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """`map`, in this process or over several."""
    if jobs == 1:
        yield map
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield pool.map


def add_parser(commands) -> None:
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


def main(arguments: argparse.Namespace) -> int:
    architectures = [int(text) for text in arguments.arch.split(",")]
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
    failures = run(architectures, only=arguments.only, update=arguments.update, jobs=arguments.jobs)
    return 1 if failures else 0
