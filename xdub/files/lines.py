"""JSON-lines files that survive a kill: records are appended as whole lines, a torn last line is dropped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xdub.files.atomic import sync

BLOCK = 65536
"""Bytes read at a time when looking for the last newline."""


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the complete records of a file; a missing file has none."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


class LineFile:
    """A JSON-lines file with one writer. Every record reaches the operating system at once.

    Opening drops a torn last line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab")
        _cut_torn_line(path)
        self._file.seek(0, os.SEEK_END)

    def append(self, record: dict[str, Any]) -> None:
        """Write one record as one line."""
        self._file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def sync(self) -> None:
        """Wait until all records so far survive a power cut."""
        sync(self._file.fileno())

    def close(self) -> None:
        """Close the file; its records are complete even without this call."""
        self._file.close()


def _cut_torn_line(path: Path) -> None:
    """Truncate the file behind its last newline. Read backwards, because a long run's file has half a gigabyte."""
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
