"""The ledger of a data set: every input ends in exactly one row, kept, rejected by one check at a value, or failed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from xdub.errors import UserError
from xdub.files.atomic import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

LEDGER = "ledger.parquet"
"""File name of the ledger in a data set."""
STATUSES = ("kept", "rejected", "failed")
"""Possible results of an input. Only a failed input is tried again."""


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """The result of one input, or of one clip of an input."""

    input: str
    """Name of the input, e.g. the path of a video."""
    clip_id: str = ""
    """Id of the clip; empty if the row is about the input as a whole."""
    status: Literal["kept", "rejected", "failed"]
    check: str = ""
    """Name of the check that decided."""
    value: float | None = None
    """Value measured by the check."""
    threshold: float | None = None
    """Bound that the check compares the value with."""
    message: str = ""
    """Reason in words."""
    worker: str = ""
    """Host and process that did the work."""
    seconds: float = 0.0
    """Time spent on the row."""
    scores: dict[str, float] = field(default_factory=dict)
    """All measurements by name, also where another check decided; empty if nothing was measured."""


class Counts(Counter[str]):
    """Number of rows by status; rejected rows count a second time as `rejected:<check>`."""

    @classmethod
    def of(cls, rows: Iterable[LedgerRow]) -> Self:
        """Count rows."""
        counts = cls()
        for row in rows:
            counts.add(row)
        return counts

    def add(self, row: LedgerRow) -> None:
        """Count one more row."""
        self[row.status] += 1
        if row.status == "rejected":
            self[f"rejected:{row.check}"] += 1

    def reasons(self) -> str:
        """Format the causes of missing results, most frequent first, as ``mouth 3, noise 1, failed 1``."""
        causes = {name.removeprefix("rejected:"): self[name] for name in self if name.startswith("rejected:")}
        causes |= {"failed": self["failed"]} if self["failed"] else {}
        return ", ".join(f"{name} {causes[name]}" for name in sorted(causes, key=lambda name: -causes[name]))

    def __str__(self) -> str:
        """Format as ``12 kept, 3 rejected, 0 failed``."""
        return ", ".join(f"{self[status]} {status}" for status in STATUSES)


class Ledger:
    """Rows of DIR/ledger.parquet. A second run adds no row twice; a failed input is tried again and its row replaced.

    Flush the ledger after the shards, so that every row with status "kept" has its clip on disk.
    """

    def __init__(self, folder: str | Path) -> None:
        """Read the ledger of a folder; a missing file is an empty ledger. Raise UserError if the file is damaged."""
        self.path = Path(folder) / LEDGER
        self._rows: dict[tuple[str, str], LedgerRow] = {}
        self._clip_ids: dict[str, list[str]] = {}
        self._settled: set[str] = set()
        self._changed = False
        self._flushed_at, self._flush_cost = 0.0, 0.0
        if self.path.exists():
            for row in _read(self.path):
                self._store(row)

    def add(self, row: LedgerRow) -> bool:
        """Add a row; return False, without a change, if its input and clip are settled already."""
        if row.status not in STATUSES:
            raise ValueError(f"ledger status {row.status!r} is not one of: {', '.join(STATUSES)}")
        previous = self._rows.get((row.input, row.clip_id))
        if previous is not None and previous.status != "failed":
            return False
        if row.status != "failed":
            # An earlier failure of the input as a whole no longer holds.
            self._rows.pop((row.input, ""), None)
        self._store(row)
        self._changed = True
        return True

    def settled(self, input: str) -> bool:
        """Return True if the input, or a clip of it, was kept or rejected, so that it needs no second attempt."""
        return input in self._settled

    def reopen(self, input: str) -> None:
        """Remove the rows of an input that are not kept, because the input changed; clips stay in the data set."""
        for clip_id in self._clip_ids.get(input, ()):
            row = self._rows.get((input, clip_id))
            if row is not None and row.status != "kept":
                del self._rows[input, clip_id]
                self._changed = True
        self._settled.discard(input)

    @property
    def changed(self) -> bool:
        """True if a row is not on disk yet."""
        return self._changed

    def rows(self) -> list[LedgerRow]:
        """List all rows in the order they were added."""
        return list(self._rows.values())

    def counts(self, inputs: Collection[str] | None = None) -> Counts:
        """Count all rows, or those of ``inputs`` only, because several commands may write one folder."""
        return Counts.of(row for row in self._rows.values() if inputs is None or row.input in inputs)

    def flush_in_turn(self) -> bool:
        """Flush, unless this would take more than a twentieth of the time since the last flush; return if it did.

        The whole file is written every time, so a flush after each of 10^4 inputs would cost their square.
        """
        due = time.monotonic() - self._flushed_at >= 20 * self._flush_cost
        if due:
            self.flush()
        return due

    def flush(self) -> None:
        """Replace the file atomically if a row changed."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._changed and self.path.exists():
            return
        begin = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([asdict(row) for row in self._rows.values()], schema=_schema())
        with atomic_path(self.path) as path:
            # An absolute path, because PyArrow takes `s3:x/ledger.parquet` for an address.
            pq.write_table(table, path.absolute())
        self._changed = False
        self._flushed_at = time.monotonic()
        self._flush_cost = self._flushed_at - begin

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is None:
            self.flush()

    def _store(self, row: LedgerRow) -> None:
        if (row.input, row.clip_id) not in self._rows:
            self._clip_ids.setdefault(row.input, []).append(row.clip_id)
        self._rows[row.input, row.clip_id] = row
        if row.status != "failed":
            self._settled.add(row.input)


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds: dict[str, pa.DataType] = dict.fromkeys(("value", "threshold", "seconds"), pa.float64())
    kinds["scores"] = pa.map_(pa.string(), pa.float64())
    return pa.schema([(column.name, kinds.get(column.name, pa.string())) for column in fields(LedgerRow)])


def _read(path: Path) -> list[LedgerRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path.absolute(), partitioning=None).to_pylist()
        # Ledgers written before scores were recorded lack the column and stay readable.
        return [LedgerRow(**(row | {"scores": dict(row.get("scores") or ())})) for row in rows]
    except (pa.ArrowException, OSError, TypeError) as error:
        raise UserError(f"{path}: not a readable ledger ({error}); remove it to start a new one") from error
