"""Rows that training could not use: what they were, and the file where a person finds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from xdub.files.lines import LineFile, read_lines


class BadRow(NamedTuple):
    """Why a clip was replaced by another."""

    error: str
    shard: str
    """Path of its file."""
    epoch: int


class Quarantine:
    """RUN/<phase>/quarantine.jsonl: {clip_id, shard, error, epoch, step} of every such clip, once. One writer.

    `step` is the one that first met it, over all restarts. The file is made with its first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = {record["clip_id"] for record in read_lines(path)}

    def note(self, bad: Mapping[str, BadRow], step: int) -> None:
        """Adds the clips that are not in the file yet."""
        new = {clip_id: row for clip_id, row in bad.items() if clip_id not in self.known}
        if not new:
            return
        file = LineFile(self.path)
        for clip_id, row in new.items():
            record = {"clip_id": clip_id, "shard": row.shard, "error": row.error}
            file.append(record | {"epoch": row.epoch, "step": step})
        file.close()
        self.known |= new.keys()
