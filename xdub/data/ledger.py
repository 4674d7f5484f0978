"""The ledger of a data set: every input ends in exactly one row, kept, rejected by one check at a value, or failed.

DIR/ledger is a folder of parts (`xdub.data.parts`), one part a flush. A set of an earlier version has its first rows
in DIR/ledger.parquet. Rows are only appended, and later rows win: a row replaces the failed row of the same clip, any
result of an input replaces its failure as a whole, and a row "reopened" removes the rows of its input that are not
kept. Merged parts leave replaced rows out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from xdub.data.hash_index import HashIndex, text_hash
from xdub.data.ledger_row import STATUSES, Counts, LedgerRow
from xdub.data.ledger_rules import CODES, KEPT, REOPENED, Keys, live_rows, without_replaced
from xdub.data.parts import Opened, Parts
from xdub.errors import UserError
from xdub.files.storage import Location, locate

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LEDGER", "OLD_LEDGER", "STATUSES", "Counts", "Ledger", "LedgerRow"]

LEDGER = "ledger"
"""Folder of the ledger's parts in a data set."""
OLD_LEDGER = "ledger.parquet"
"""File of the first rows in a data set of an earlier version."""
FAILED, SETTLED = 1, 2
"""Numbers of inputs in the index: those without a result, and settled ones."""
KEY_COLUMNS = ("input", "clip_id", "status")
"""Columns that decide which rows count."""
BATCH = 4096
"""Rows that are converted to Python objects at a time."""


class Ledger:
    """Rows of DIR/ledger. A second run adds no row twice; a failed input is tried again and its row replaced.

    In memory are the hashes of inputs and clips, and the rows that are not flushed. Flush the ledger after the
    manifest, so that every row with status "kept" has its clip on disk.
    """

    def __init__(self, folder: str | Path | Location, *, repair: bool = False) -> None:
        """Read the ledger of a folder; a missing one is empty. Raise UserError that names a damaged file.

        With ``repair``, remove first what a killed writer left; the caller is the only writer of the folder.
        """
        root = locate(folder)
        self.path = root / LEDGER
        """Folder of the parts, for messages."""
        self.parts = Parts(self.path, ledger_schema(), without_replaced)
        self._old = root / OLD_LEDGER
        self._rows, self._inputs = HashIndex(), HashIndex()
        self._reopened: dict[int, int] = {}
        """Number of times that an input was reopened, by its hash."""
        self._pending: list[LedgerRow | str] = []
        """Rows that are not on disk, and names of inputs that were reopened."""
        if repair:
            _ = self.parts.parts
        for table in self._tables(self.parts.open_all(), self._pending_table(), KEY_COLUMNS):
            self._load(table)

    def add(self, row: LedgerRow) -> bool:
        """Add a row; return False, without a change, if its input and clip are settled already."""
        if row.status not in STATUSES:
            raise ValueError(f"ledger status {row.status!r} is not one of: {', '.join(STATUSES)}")
        source = text_hash(row.input)
        reopened = self._reopened.get(source, 0)
        if self._rows.get(_key(row.input, row.clip_id, reopened)) >= CODES["rejected"]:
            return False
        is_kept = any(self._rows.get(_key(row.input, row.clip_id, n)) == KEPT for n in range(reopened))
        if is_kept and row.status == "failed":
            return False
        if is_kept:
            # The clip of the reopened input is still in the data set; the row settles the input again.
            row = replace(row, status="kept", check="", value=None, threshold=None)
        self._index(row.input, row.clip_id, row.status)
        self._pending.append(row)
        return not is_kept

    def settled(self, input: str) -> bool:
        """Return True if the input, or a clip of it, was kept or rejected, so that it needs no second attempt."""
        return self._inputs.get(text_hash(input)) == SETTLED

    def reopen(self, input: str) -> None:
        """Remove the rows of an input that are not kept, because the input changed; clips stay in the data set."""
        if text_hash(input) in self._inputs:
            self._index(input, "", REOPENED)
            self._pending.append(input)

    @property
    def changed(self) -> bool:
        """True if a row is not on disk yet."""
        return bool(self._pending)

    def rows(self) -> Iterator[LedgerRow]:
        """Yield all rows in the order they were added."""
        for table in self._live(None):
            yield from _to_rows(table)

    def inputs(self) -> set[str]:
        """Return the names of all inputs with rows."""
        names: set[str] = set()
        for table in self._live(KEY_COLUMNS):
            names.update(table["input"].unique().to_pylist())
        return names

    def lookup(self, input: str) -> list[LedgerRow]:
        """Return the rows of one input."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if text_hash(input) not in self._inputs:
            return []
        return [
            row
            for table in self._live(
                None, lambda table: pc.call_function("equal", [table["input"], pa.scalar(input)])
            )
            for row in _to_rows(table)
        ]

    def counts(self, inputs: Collection[str] | None = None) -> Counts:
        """Count all rows, or those of ``inputs`` only, because several commands may write one folder."""
        counts = Counts()
        for table in self._live(["input", "status", "check"]):
            for name, status, check in zip(
                *(table[name].to_pylist() for name in table.column_names), strict=True
            ):
                if inputs is None or name in inputs:
                    counts.add_result(status, check)
        return counts

    def kept_clips(self) -> HashIndex:
        """Return the hashes of all clips with a row "kept"."""
        clips = HashIndex()
        for table in self._live(KEY_COLUMNS):
            for clip_id, status in zip(
                table["clip_id"].to_pylist(), table["status"].to_pylist(), strict=True
            ):
                if status == "kept":
                    clips.set(text_hash(clip_id), 1)
        return clips

    def flush_in_turn(self) -> bool:
        """Flush the rows that are not on disk; return True."""
        self.flush()
        return True

    def flush(self) -> None:
        """Append the rows that are not on disk as one part."""
        if self._pending:
            # A part that an exception interrupts may be complete, so its rows are not written a second time.
            table, self._pending = self._pending_table(), []
            self.parts.append(table)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Drop the rows that the block adds if it fails, because a part of an input's rows would settle the input."""
        before = len(self._pending)
        try:
            yield
        except BaseException:
            del self._pending[before:]
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is None:
            self.flush()

    def _live(
        self, columns: Sequence[str] | None, chosen: Callable[[pa.Table], pa.ChunkedArray] | None = None
    ) -> Iterator[pa.Table]:
        """Yield the columns of the rows that no later row replaced, and that a condition chooses, table by table."""
        import pyarrow as pa
        import pyarrow.compute as pc

        opened, pending = self.parts.open_all(), self._pending_table()
        keys = Keys()
        for table in self._tables(opened, pending, KEY_COLUMNS):
            keys.add(table)
        live, start = live_rows(keys), 0
        for table in self._tables(opened, pending, columns):
            mask = pa.chunked_array([live[start : start + table.num_rows]], pa.bool_())
            start += table.num_rows
            yield table.filter(mask if chosen is None else pc.call_function("and", [chosen(table), mask]))

    def _tables(
        self, opened: Opened, pending: pa.Table, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Yield the rows of the earlier version's file, of the parts, and those that are not on disk."""
        names = list(columns or ledger_schema().names)
        if self._old.is_file():
            yield _read_old(self._old, names)
        yield from self.parts.read(opened, names)
        yield pending.select(names)

    def _pending_table(self) -> pa.Table:
        import pyarrow as pa

        rows = [
            {"input": row, "clip_id": "", "status": REOPENED} if isinstance(row, str) else vars(row)
            for row in self._pending
        ]
        return pa.Table.from_pylist(rows, schema=ledger_schema())

    def _load(self, table: pa.Table) -> None:
        """Add the rows of a table to the index."""
        for row in zip(*(table[name].to_pylist() for name in KEY_COLUMNS), strict=True):
            self._index(*row)

    def _index(self, input: str, clip_id: str, status: str) -> None:
        source = text_hash(input)
        if status == REOPENED:
            self._reopened[source] = self._reopened.get(source, 0) + 1
            self._inputs.set(source, FAILED)
            return
        self._rows.set(_key(input, clip_id, self._reopened.get(source, 0)), CODES[status])
        if status != "failed":
            self._inputs.set(source, SETTLED)
        elif source not in self._inputs:
            self._inputs.set(source, FAILED)


def ledger_schema() -> pa.Schema:
    """Return the columns of a part: the fields of `LedgerRow`."""
    import pyarrow as pa

    kinds: dict[str, pa.DataType] = dict.fromkeys(("value", "threshold", "seconds"), pa.float64())
    kinds["scores"] = pa.map_(pa.string(), pa.float64())
    return pa.schema([(column.name, kinds.get(column.name, pa.string())) for column in fields(LedgerRow)])


def last_change_ns(folder: str | Path | Location) -> int:
    """Return the time at which the newest file of a ledger was written, 0 without one."""
    root = locate(folder)
    old = (root / OLD_LEDGER).info().mtime_ns or 0
    parts = (root / LEDGER).walk() if (root / LEDGER).exists() else iter(())
    return max([old, *(changed_ns for _, _, changed_ns in parts)])


def _key(input: str, clip_id: str, reopened: int) -> int:
    """Return the hash of a row; an input that was reopened begins with new rows."""
    return text_hash(input, clip_id, str(reopened)) if reopened else text_hash(input, clip_id)


def _to_rows(table: pa.Table) -> Iterator[LedgerRow]:
    """Yield a table's rows."""
    for batch in table.to_batches(BATCH):
        for row in batch.to_pylist():
            yield LedgerRow(**(row | {"scores": dict(row["scores"] or ())}))


def _read_old(path: Location, names: list[str]) -> pa.Table:
    """Read the ledger of an earlier version, which may lack scores."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open() as file:
            table = pq.read_table(file)
        for name in set(names) - set(table.column_names):
            table = table.append_column(name, pa.nulls(table.num_rows, ledger_schema().field(name).type))
        return table.select(names).cast(pa.schema([ledger_schema().field(name) for name in names]))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable ledger ({error}); remove it to start a new one") from error
