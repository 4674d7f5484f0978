"""Text files that survive any kill: whole or not at all, or appended to by whole JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 65536


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
    """A JSON-lines file with one writer. Every record reaches the operating system at once.

    A torn last line is dropped on opening.
    """

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
    """Looks at the end only: the record of a long run has half a gigabyte."""
    with path.open("rb") as file:
        size = whole = file.seek(0, os.SEEK_END)
        while whole:
            low = max(0, whole - BLOCK)
            file.seek(low)
            newline = file.read(whole - low).rfind(b"\n")
            if newline >= 0:
                whole = low + newline + 1
                break
            whole = low
    if whole != size:
        os.truncate(path, whole)
