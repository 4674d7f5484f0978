"""Result rows: JSON Lines, one self-contained object per measurement."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

SCHEMA = 1
"""Version of the rows' format."""
RESULTS = Path(__file__).parent / "results"
"""Folder of result files, one folder per GPU."""


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows to one file, whose folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows), "utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of one file. Raises ``ValueError`` naming the file and the line of any other text."""
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            schema = row["schema"]
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise ValueError(f"{path}:{number}: not a result row ({error!r})") from error
        if schema != SCHEMA:
            raise ValueError(f"{path}:{number}: schema {schema}, this version reads {SCHEMA}")
        rows.append(row)
    return rows


def key(row: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """Return kernel, shape, mode, dtype and provider: the identity of a measurement."""
    return row["kernel"], row["shape"], row["mode"], row["dtype"], row["provider"]


def measured(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that have a time."""
    return [row for row in rows if row["status"] == "ok"]


def reason(problem: BaseException) -> str:
    """Return the type and first line of an exception."""
    text = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {text[0] if text else ''}"
