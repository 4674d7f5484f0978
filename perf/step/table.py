"""Rows of `python -m perf step` as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

GIB = 2**30


def table(found: Sequence[dict[str, Any]]) -> Table:
    """What was measured, and beside it what the planner had said."""
    first = found[0]
    where = first["environment"]["gpu"] or f"a CPU, {first['environment']['threads']} threads"
    planned = first["planned"]
    title = f"one step of {first['recipe']} {first['phase']} on {where}"
    made = Table(title=title, title_justify="left", title_style="bold")
    for name in ("tokens", "policy", "impl"):
        made.add_column(name)
    ahead = (
        f"planned ms at {planned['efficiency']:.0%} of {planned['gpu']}" if planned["gpu"] else "planned ms"
    )
    for name in ("ms", "tokens/s", "MFU", "x reference", "peak GiB", "planned GiB", ahead):
        made.add_column(name, justify="right")
    for number, row in enumerate(found):
        last = number + 1 == len(found) or found[number + 1]["shape"] != row["shape"]
        made.add_row(*_cells(row), end_section=last)
    return made


def _cells(row: dict[str, Any]) -> list[str]:
    what = [f"{row['micro_batch']} x {row['tokens']:,}", row["mode"], row["provider"]]
    plan = [f"{row['planned']['allocated_bytes'] / GIB:.2f}", _number(row["planned"]["ms"], "{:,.1f}")]
    if row["status"] != "ok":
        return [*what, row["status"], "", "", "", "", *plan]
    peak = row["peak_bytes"]
    return [
        *what,
        f"{row['p50_ms']:,.1f}",
        f"{row['tokens_per_s']:,.0f}",
        _number(row["mfu"], "{:.1%}"),
        _number(row.get("times_reference"), "{:.2f}"),
        _number(peak / GIB if peak is not None else None, "{:.2f}"),
        *plan,
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
