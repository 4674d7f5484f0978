"""`python -m perf report`: tables of README.md, docs/kernels.md, docs/plan.md from the newest files of every GPU."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf import rows
from perf.kernels.rates import rate

BEGIN, END = "<!-- perf report: begin -->", "<!-- perf report: end -->"
"""Marks of the generated section."""
ROOT = Path(__file__).parents[2]
OURS = "xdub"
"""Prefix of our providers."""
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Part:
    """Generated section between the marks of a document."""

    write: Callable[[list[dict[str, Any]]], str]
    """Function that returns Markdown for the rows of one file."""
    command: str
    """Command that produces such files."""
    kind: str = ""
    """Suffix of the file name DATE-COMMIT.KIND.jsonl; empty for `perf run`."""


def newest(results: Path = rows.RESULTS, kind: str = "") -> list[Path]:
    """Return the latest file of a kind that holds a time, of each GPU (dates lead the names)."""
    folders = sorted(p for p in results.iterdir() if p.is_dir()) if results.is_dir() else []
    runs = ([p for p in folder.glob("*.jsonl") if Path(p.stem).suffix == kind] for folder in folders)
    timed = ([p for p in files if rows.measured(rows.read(p))] for files in runs)
    return [max(files) for files in timed if files]


def heading(rows_of_file: list[dict[str, Any]]) -> str:
    """Return the machine and the code of one file as Markdown."""
    machine = rows_of_file[0]["environment"]
    head = f"**{machine['gpu']}**, torch {machine['torch']}, triton {machine['triton']}, commit {machine['commit']}"
    ceilings = rows_of_file[0]["ceilings"]
    if ceilings:
        copy, matmul = ceilings["copy_gbs"], ceilings["matmul_tflops"]
        head += f"; measured ceilings: copy {copy:.0f} GB/s, matmul {matmul:.0f} TFLOP/s"
    return head


def table(rows_of_file: list[dict[str, Any]]) -> str:
    """Return Markdown for the rows of one file: ours beside the best and the usual competitor."""
    measured = rows.measured(rows_of_file)
    lines = [
        heading(rows_of_file),
        "",
        "| kernel | size | mode | who | ms | rate | of ceiling | against ours |",
    ]
    lines.append("|---|---|---|---|---:|---:|---:|---:|")
    for row in measured:
        same = [r for r in measured if rows.key(r)[:4] == rows.key(row)[:4]]
        ours = min((r["p50_ms"] for r in same if r["provider"].startswith(OURS)), default=None)
        ratio = f"{row['p50_ms'] / ours:.2f} x" if ours else ""
        labels = f"{row['kernel']} | {row['shape']} | {row['mode']} | {row['provider']}"
        lines.append(f"| {labels} | {row['p50_ms']:.4f} | {rate(row)} | {row['of_ceiling']:.0%} | {ratio} |")
    return "\n".join(lines)


def summary(rows_of_file: list[dict[str, Any]]) -> str:
    """Return Markdown with a row per operation, size and mode: our fastest beside the fastest competitor."""
    measured = rows.measured(rows_of_file)
    lines = [
        heading(rows_of_file),
        "",
        "| kernel | size | mode | ours | of ceiling | best other | it takes |",
    ]
    lines.append("|---|---|---|---:|---:|---|---:|")
    for group in dict.fromkeys(rows.key(row)[:3] for row in measured):
        same = [row for row in measured if rows.key(row)[:3] == group]
        ours = min((r for r in same if r["provider"].startswith(OURS)), key=_time, default=None)
        other = min((r for r in same if not r["provider"].startswith(OURS)), key=_time, default=None)
        if ours and other:
            ratio = other["p50_ms"] / ours["p50_ms"]
            fastest = f"{ours['provider']} {ours['p50_ms']:.4f} ms | {ours['of_ceiling']:.0%}"
            lines.append(f"| {' | '.join(group)} | {fastest} | {other['provider']} | {ratio:.2f} x |")
    return "\n".join(lines)


def _time(row: dict[str, Any]) -> float:
    return row["p50_ms"]


def steps(rows_of_file: list[dict[str, Any]]) -> str:
    """Return Markdown for the training steps of one file, with the plan of each."""
    lines = [heading(rows_of_file), ""]
    lines.append("| step | policy | kernels | ms | tokens/s | MFU | peak GiB | planned GiB | planned ms |")
    lines.append("|---|---|---|---:|---:|---:|---:|---:|---:|")
    for row in rows_of_file:
        planned = row["planned"]
        cells = [f"{row['shape']} tokens", row["mode"], row["provider"], row["status"], "", "", ""]
        if row["status"] == "ok":
            cells[3:5] = f"{row['p50_ms']:,.0f}", f"{row['tokens_per_s']:,.0f}"
            cells[5:] = _or_dash(row["mfu"], "{:.1%}"), f"{row['peak_bytes'] / GIB:.1f}"
        cells += f"{planned['allocated_bytes'] / GIB:.1f}", _or_dash(planned["ms"], "{:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _or_dash(value: float | None, form: str) -> str:
    """Format a value; None, e.g. MFU on a GPU whose peak is unknown, is a dash."""
    return "-" if value is None else form.format(value)


KERNELS = Part(write=table, command="python -m perf run --all")
SUMMARY = Part(write=summary, command="python -m perf run --all")
STEPS = Part(write=steps, command="python -m perf step", kind=".step")
DOCUMENTS = {ROOT / "README.md": SUMMARY, ROOT / "docs/kernels.md": KERNELS, ROOT / "docs/plan.md": STEPS}


def report(part: Part, results: Path = rows.RESULTS) -> str:
    """Return the section for every measured GPU."""
    files = newest(results, part.kind)
    if not files:
        return (
            f"No GPU has been measured yet: neither A100 nor H100/H200. `{part.command}` on a machine "
            "with one fills this table."
        )
    return "\n\n".join(part.write(rows.read(path)) for path in files)


def inserted(document: str, text: str) -> str:
    """Return the document with ``text`` between its marks."""
    before, rest = document.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def add_parser(commands: Any) -> None:
    """Add the command `report` and its options."""
    parser = commands.add_parser(
        "report", help="write the tables of README.md, docs/kernels.md and docs/plan.md from perf/results"
    )
    parser.add_argument(
        "--check", action="store_true", help="only check whether the documents are up to date"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    stale = 0
    for path, part in DOCUMENTS.items():
        document = path.read_text("utf-8")
        updated = inserted(document, report(part))
        if updated == document:
            continue
        stale += 1
        if args.check:
            print(f"{path} is out of date: run python -m perf report", file=sys.stderr)
        else:
            path.write_text(updated, "utf-8")
            print(f"wrote {path}")
    return int(args.check and stale > 0)
