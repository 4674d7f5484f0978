"""JSON-lines files of a run: committed steps and skipped batches."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xdub.errors import UserError
from xdub.files.lines import LineFile


class CommittedSteps:
    """Record with one line for each committed optimizer step, and no step twice.

    A step is {step, loss (float as hex, exact), sample_ids, attempt}; steps are counted from 1.
    """

    def __init__(self, path: Path, *, resume_at: int) -> None:
        """Continue after step ``resume_at``: later lines belong to steps that were lost and will be run again."""
        self.path = path
        self._file = self._cut(resume_at)

    def rewind(self, step: int) -> None:
        """Remove the lines after ``step``."""
        self._file.close()
        self._file = self._cut(step)

    def _cut(self, step: int) -> LineFile:
        kept: list[int] = []

        def is_later(line: bytes) -> bool:
            number = _step(line)
            if number <= step:
                kept.append(number)
            return number > step

        file = _cut_at(self.path, is_later)
        if kept != list(range(1, step + 1)):
            file.close()
            raise UserError(
                f"{self.path}: steps 1..{step} are not all in it, once and in order, as the checkpoint requires; "
                "restore the file or start again in another --out"
            )
        return file

    def append(self, step: int, loss: float, sample_ids: list[str], attempt: int) -> None:
        """Write the line of a step."""
        record = {"step": step, "loss": float(loss).hex(), "sample_ids": sample_ids, "attempt": attempt}
        self._file.append(record)

    def sync(self) -> None:
        """Wait until all lines survive a power cut."""
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class SkippedBatches:
    """Record with one line for each global batch that no step learned from, for inspection.

    A line is {step (the one after it), cursor, objection, loss, sample_ids, attempt}.
    """

    def __init__(self, path: Path, *, resume_at: int) -> None:
        """Continue at cursor ``resume_at``: later batches will be judged again."""
        self.path = path
        self._file = _cut_at(path, lambda line: json.loads(line)["cursor"] >= resume_at)

    def append(self, **record: Any) -> None:
        """Write the line of a batch."""
        # The loss is text, because JSON has neither inf nor nan.
        self._file.append(record | {"loss": str(record["loss"])})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _step(line: bytes) -> int:
    """Return the number of a committed step without parsing the hundreds of ids after it.

    A long run has half a gigabyte of ids.
    """
    return int(line[len(b'{"step":') : line.index(b",")])


def _cut_at(path: Path, dropped: Callable[[bytes], bool]) -> LineFile:
    """Cut the file before the first line that is dropped, and open it at its end."""
    if path.is_file():
        keep = 0
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n") or dropped(line):
                    break
                keep += len(line)
        os.truncate(path, keep)
    return LineFile(path)


def last_record(path: Path, tail_bytes: int = 65536) -> dict[str, Any] | None:
    """Read the newest complete record from the end of the file; return None if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - tail_bytes))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    return json.loads(lines[-1]) if lines and lines[-1].startswith(b"{") else None
