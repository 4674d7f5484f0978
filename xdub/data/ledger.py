"""The ledger: every input ends in exactly one row, kept, or rejected by which check at which value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from xdub.errors import UserError
from xdub.files.atomic import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

LEDGER = "ledger.parquet"
STATUSES = ("kept", "rejected", "failed")


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """What became of one input, or of one clip of it."""

    input: str
    clip_id: str = ""  # empty: the input as a whole
    status: Literal["kept", "rejected", "failed"]
    check: str = ""  # name of the check that decided
    value: float | None = None
    threshold: float | None = None
    message: str = ""
    worker: str = ""
    seconds: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    """All that was measured of it, also where another check decided; empty where nothing was."""


class Counts(Counter[str]):
    """Rows by status; rejected ones also as `rejected:<check>`."""

    @classmethod
    def of(cls, rows: Iterable[LedgerRow]) -> Self:
        counts = cls()
        for row in rows:
            counts.add(row)
        return counts

    def add(self, row: LedgerRow) -> None:
        self[row.status] += 1
        if row.status == "rejected":
            self[f"rejected:{row.check}"] += 1

    def __str__(self) -> str:
        """``12 kept, 3 rejected, 0 failed``"""
        return ", ".join(f"{self[status]} {status}" for status in STATUSES)


class Ledger:
    """Rows of DIR/ledger.parquet. Running again adds nothing twice; a failed input is tried again and replaced.

    Flush it after the shards: a row that says "kept" then always has its clip.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / LEDGER
        self._rows: dict[tuple[str, str], LedgerRow] = {}
        self._changed = False
        if self.path.exists():
            for row in _read(self.path):
                self._rows[row.input, row.clip_id] = row

    def add(self, row: LedgerRow | None = None, **fields_: Any) -> bool:
        """Adds a row (given whole, or as its fields); False if its input and clip are settled already."""
        row = row or LedgerRow(**fields_)
        if row.status not in STATUSES:
            raise ValueError(f"ledger status {row.status!r} is not one of: {', '.join(STATUSES)}")
        known = self._rows.get((row.input, row.clip_id))
        if known is not None and known.status != "failed":
            return False
        if row.status != "failed":
            self._rows.pop((row.input, ""), None)  # the failure of the input as a whole is overcome
        self._rows[row.input, row.clip_id] = row
        self._changed = True
        return True

    def settled(self, input: str) -> bool:
        """Whether the input (or a clip of it) was kept or rejected, so that it need not be done again."""
        return any(row.input == input and row.status != "failed" for row in self._rows.values())

    def rows(self) -> list[LedgerRow]:
        return list(self._rows.values())

    def counts(self, inputs: Collection[str] | None = None) -> Counts:
        """Of all rows, or of those of some inputs: a folder may hold what several commands made."""
        return Counts.of(row for row in self._rows.values() if inputs is None or row.input in inputs)

    def flush(self) -> None:
        """Replaces the file at once, if anything changed."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._changed and self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([asdict(row) for row in self._rows.values()], schema=_schema())
        with atomic_path(self.path) as path:
            pq.write_table(table, path)
        self._changed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is None:
            self.flush()


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds: dict[str, pa.DataType] = dict.fromkeys(("value", "threshold", "seconds"), pa.float64())
    kinds["scores"] = pa.map_(pa.string(), pa.float64())
    return pa.schema([(column.name, kinds.get(column.name, pa.string())) for column in fields(LedgerRow)])


def _read(path: Path) -> list[LedgerRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path, partitioning=None).to_pylist()
        # A ledger of before there were scores has no such column, and goes on.
        return [LedgerRow(**(row | {"scores": dict(row.get("scores") or ())})) for row in rows]
    except (pa.ArrowException, OSError, TypeError) as error:
        raise UserError(f"{path}: not a readable ledger ({error}); remove it to start a new one") from error
