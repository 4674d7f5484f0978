"""The table of an examination for the terminal, and the same rows as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from xdub.doctor.rows import Row

STYLES = {"ok": "green", "wrong": "bold red", "not run": "yellow"}
"""Result -> style of its cell."""


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Print every row with its result, what was found or what is wrong and the fix, seconds and peak memory."""
    table = Table(
        Column("check"),
        Column("result"),
        Column("what was found / what is wrong and the fix", overflow="fold"),
        Column("seconds", justify="right"),
        Column("peak GB", justify="right"),
    )
    for row in rows:
        words = f"{row.words}\nfix: {row.fix}" if row.fix else row.words
        table.add_row(
            row.name,
            f"[{STYLES[row.result]}]{row.result}[/]",
            escape(words),
            f"{row.seconds:.1f}",
            "" if row.peak_gb is None else f"{row.peak_gb:.2f}",
        )
    console.print(table)


def as_json(rows: Sequence[Row], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the examination as plain values: facts about it, and every row."""
    return {**facts, "ok": all(row.result == "ok" for row in rows), "rows": [row.to_dict() for row in rows]}
