"""Quarantine: the file that lists the rows that training could not read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from xdub.files.lines import LineFile, read_lines


class BadRow(NamedTuple):
    """A clip that was replaced by another because its row cannot be read."""

    error: str
    """Type and message of the error."""
    shard: str
    """Path of the row's file."""
    epoch: int
    """Epoch of the first attempt to read the row."""


class Quarantine:
    """RUN/<phase>/quarantine.jsonl: {clip_id, shard, error, epoch, step}, one row per clip. It has one writer.

    `step` is the first step that read the clip, over all restarts. The first row creates the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clip_ids = {record["clip_id"] for record in read_lines(path)}

    def note(self, bad: Mapping[str, BadRow], step: int) -> None:
        """Add the clips that are not in the file yet."""
        new = {clip_id: row for clip_id, row in bad.items() if clip_id not in self.clip_ids}
        if not new:
            return
        file = LineFile(self.path)
        for clip_id, row in new.items():
            record = {"clip_id": clip_id, "shard": row.shard, "error": row.error}
            file.append(record | {"epoch": row.epoch, "step": step})
        file.close()
        self.clip_ids |= new.keys()
