"""Packing of clips into shards by a worker: a shard holds clips of complete sources, so a failed source adds none.

Rows wait in memory until a shard is full, so memory does not grow with the length of a source.
"""

from __future__ import annotations

from typing import Any

from xdub.data.shard_files import ShardFacts, write_shard
from xdub.files.storage import Location


class ShardPacker:
    """Writer of the shards of one unit, whose rows arrive source by source.

    Shards depend on the rows alone: equal rows give equal files with equal names on every worker.
    """

    def __init__(self, folder: Location, rows_per_shard: int) -> None:
        self._folder, self._rows_per_shard = folder, rows_per_shard
        self._complete: list[ShardFacts] = []
        """Shards of complete sources."""
        self._pending: list[ShardFacts] = []
        """Shards of the current source alone."""
        self._rows: list[dict[str, Any]] = []
        self.dropped: list[str] = []
        """Files of the shards of failed sources. A commit may name them, so only `DataSet.commit` removes them."""
        self._settled = 0
        """Number of rows in memory that belong to complete sources; they come first."""

    def add(self, row: dict[str, Any]) -> None:
        """Add a row of `xdub.data.clip.to_row` of the current source."""
        self._rows.append(row)
        if len(self._rows) < self._rows_per_shard:
            return
        if self._settled:
            # Complete sources are written first, so that no shard mixes them with a source that may fail.
            self._complete.append(write_shard(self._folder, self._rows[: self._settled]))
            self._rows = self._rows[self._settled :]
            self._settled = 0
        else:
            self._pending.append(write_shard(self._folder, self._rows))
            self._rows = []

    def keep(self) -> None:
        """Complete the current source."""
        self._complete += self._pending
        self._pending, self._settled = [], len(self._rows)

    def drop(self) -> None:
        """Remove all rows of the current source."""
        self.dropped += [shard.file for shard in self._pending]
        self._pending = []
        del self._rows[self._settled :]

    def close(self) -> list[ShardFacts]:
        """Write the rest; return all shards in the order of their rows."""
        self.drop()
        if self._rows:
            self._complete.append(write_shard(self._folder, self._rows))
            self._rows, self._settled = [], 0
        return self._complete
