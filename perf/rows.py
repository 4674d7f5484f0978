"""Result rows: JSON Lines, one object a measurement, each complete in itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

SCHEMA = 1
RESULTS = Path(__file__).parent / "results"


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows), "utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of one file. ValueError that names file and line for anything else."""
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
    """What a row measures."""
    return row["kernel"], row["shape"], row["mode"], row["dtype"], row["provider"]


def measured(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["status"] == "ok"]


def reason(problem: BaseException) -> str:
    """A failure in one line."""
    text = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {text[0] if text else ''}"
