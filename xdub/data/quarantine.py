"""Rows that training could not use: what they were, and the file where a person finds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


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
        data = path.read_bytes() if path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:  # killed while writing
            path.write_bytes(whole)
        self.known = {json.loads(line)["clip_id"] for line in whole.splitlines()}

    def note(self, bad: Mapping[str, BadRow], step: int) -> None:
        """Adds the clips that are not in the file yet."""
        new = {clip_id: row for clip_id, row in bad.items() if clip_id not in self.known}
        if not new:
            return
        with self.path.open("ab") as file:
            for clip_id, row in new.items():
                record = {"clip_id": clip_id, "shard": row.shard, "error": row.error}
                file.write(json.dumps(record | {"epoch": row.epoch, "step": step}).encode() + b"\n")
        self.known |= new.keys()
