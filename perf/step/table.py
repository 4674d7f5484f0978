"""Rows of `python -m perf step` as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

GIB = 2**30
"""Bytes of a GiB."""


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the measured rows beside their plan, as a table for the terminal."""
    first = rows[0]
    machine = first["environment"]["gpu"] or f"a CPU, {first['environment']['threads']} threads"
    planned = first["planned"]
    title = f"one step of {first['recipe']} {first['phase']} on {machine}"
    result = Table(title=title, title_justify="left", title_style="bold")
    for name in ("tokens", "policy", "impl"):
        result.add_column(name)
    ahead = (
        f"planned ms at {planned['efficiency']:.0%} of {planned['gpu']}" if planned["gpu"] else "planned ms"
    )
    for name in ("ms", "tokens/s", "MFU", "x reference", "peak GiB", "planned GiB", ahead):
        result.add_column(name, justify="right")
    for number, row in enumerate(rows):
        last = number + 1 == len(rows) or rows[number + 1]["shape"] != row["shape"]
        result.add_row(*_cells(row), end_section=last)
    return result


def _cells(row: dict[str, Any]) -> list[str]:
    labels = [f"{row['micro_batch']} x {row['tokens']:,}", row["mode"], row["provider"]]
    plan = [f"{row['planned']['allocated_bytes'] / GIB:.2f}", _number(row["planned"]["ms"], "{:,.1f}")]
    if row["status"] != "ok":
        return [*labels, row["status"], "", "", "", "", *plan]
    peak = row["peak_bytes"]
    return [
        *labels,
        f"{row['p50_ms']:,.1f}",
        f"{row['tokens_per_s']:,.0f}",
        _number(row["mfu"], "{:.1%}"),
        _number(row.get("times_reference"), "{:.2f}"),
        _number(peak / GIB if peak is not None else None, "{:.2f}"),
        *plan,
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
