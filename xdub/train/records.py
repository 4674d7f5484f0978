"""Append-only files of a run that survive any kill: whole JSON lines, a torn last line is dropped on opening."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xdub.errors import UserError


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Complete records of the file; nothing if there is none."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def write_atomic(path: Path, text: str) -> None:
    """Whole file or none: temporary name, fsync, rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class LineFile:
    """A JSON-lines file with one writer. Every record reaches the operating system at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab")
        _cut_torn_line(path)
        self._file.seek(0, os.SEEK_END)

    def append(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def sync(self) -> None:
        """Until here the file survives a power cut."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _cut_torn_line(path: Path) -> None:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.truncate(path, whole)


class CommittedSteps:
    """``steps.jsonl``: one line per committed optimizer step, none twice.

    A step is {step, loss (float as hex, exact), sample_ids, attempt}; steps count from 1.
    """

    def __init__(self, path: Path, *, resume_at: int) -> None:
        """Continue after step ``resume_at``: later lines belong to steps that were lost and will be run again."""
        kept = [record for record in read_lines(path) if record["step"] <= resume_at]
        if [record["step"] for record in kept] != list(range(1, resume_at + 1)):
            raise UserError(
                f"{path}: steps 1..{resume_at} are not all there, once and in order, though a checkpoint is; "
                "restore the file or start again in another --out"
            )
        write_atomic(path, "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in kept))
        self._file = LineFile(path)

    def append(self, step: int, loss: float, sample_ids: list[str], attempt: int) -> None:
        record = {"step": step, "loss": loss.hex(), "sample_ids": sample_ids, "attempt": attempt}
        self._file.append(record)

    def sync(self) -> None:
        self._file.sync()

    def close(self) -> None:
        self._file.close()


def last_record(path: Path, tail_bytes: int = 65536) -> dict[str, Any] | None:
    """Newest complete record, reading only the end of the file."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - tail_bytes))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    return json.loads(lines[-1]) if lines and lines[-1].startswith(b"{") else None
