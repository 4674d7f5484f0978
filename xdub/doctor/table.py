"""The table of an examination for the terminal, and the same rows as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from xdub.doctor.rows import Row

STYLES = {"ok": "green", "wrong": "bold red", "not run": "yellow"}
"""Result -> style of its cell."""


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Print every row with its result, the facts or the problem and its fix, seconds and peak memory.

    Columns that would be empty are omitted.
    """
    measured = any(row.seconds >= 0.05 for row in rows)
    numbers = [Column("s", justify="right"), Column("peak GB", justify="right")] if measured else []
    table = Table(
        Column("check", no_wrap=True),
        Column("result", no_wrap=True),
        Column("facts, or problem and fix", overflow="fold"),
        *numbers,
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        words = escape(row.words) + (f"\n[bold]fix: {escape(row.fix)}[/]" if row.fix else "")
        seconds = f"{row.seconds:.1f}" if row.seconds else ""
        memory = "" if row.peak_gb is None or not seconds else f"{row.peak_gb:.2f}"
        table.add_row(
            row.name,
            f"[{STYLES[row.result]}]{row.result}[/]",
            words,
            *([seconds, memory] if measured else []),
            end_section=following is not None and following.part != row.part,
        )
    console.print(table)


def summary(rows: Sequence[Row], facts: dict[str, Any]) -> str:
    """Return a line about the whole examination."""
    if "device" not in facts:
        return f"recipe {facts['recipe']}: the cluster has no room for a worker"
    if facts["quick"]:
        return f"recipe {facts['recipe']}: headers of {len(rows)} networks were read; without --quick they are run"
    seconds = sum(row.seconds for row in rows)
    return (
        f"recipe {facts['recipe']} on {'a GPU' if facts['device'] == 'cuda' else 'a CPU'}: pictures of "
        f"{facts['size']} px, clips of {facts['frames']} frames, {facts['layers']} blocks of width {facts['width']}, "
        f"{seconds:.0f} s"
    )


def as_json(rows: Sequence[Row], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the examination as plain values: facts about it, and every row."""
    return {**facts, "ok": all(row.result == "ok" for row in rows), "rows": [row.to_dict() for row in rows]}
