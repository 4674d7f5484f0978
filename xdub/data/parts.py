"""Append-only tables: a folder of Parquet parts, one part a commit, that are merged so that their number stays small.

    00000031-<16 hex>.parquet             the 32nd commit
    00000000-00000015-<16 hex>.parquet    commits 0 to 15, merged

The hex digits are the beginning of the file's sha256, so a part that was damaged or cut short is detected. When the
last 16 parts are of one level, they are merged to a part of the next level, so n commits cost n log n in total. A
merged part is complete before the parts that it covers are removed, and a reader ignores covered parts, so a kill at
any moment loses nothing and shows no row twice. A folder has one writer at a time, and any number of readers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdub.errors import UserError
from xdub.files.storage import Location

if TYPE_CHECKING:
    import pyarrow as pa

FAN = 16
"""Number of parts of a level that are merged to one of the next level."""
LEVELS = 3
"""Number of levels that are merged, so that a merge never reads more than 16^3 commits."""
NAME = re.compile(r"(\d{8})(?:-(\d{8}))?-([0-9a-f]{16})\.parquet")
"""Form of a part's file name. Other files of the folder are ignored, so no name leads out of it."""
INCOMPLETE = re.compile(r"\.[0-9a-f-]+\.[0-9a-f]+\.parquet")
"""Form of the name of a part that is being written, see `xdub.files.atomic`."""
ATTEMPTS = 5
"""Number of times that a reader lists the folder while a writer merges parts."""

Merge = Callable[["pa.Table"], "pa.Table"]
"""Function that drops the rows of a merged table that later rows replaced."""


@dataclass(frozen=True)
class Part:
    """One file of the folder."""

    name: str
    first: int
    """Number of its first commit."""
    last: int
    """Number of its last commit."""
    digest: str
    """Beginning of its sha256, 16 hex digits."""

    @property
    def level(self) -> int:
        """Number of merges that its rows went through, at most."""
        span, level = self.last - self.first + 1, 0
        while span >= FAN:
            span, level = span // FAN, level + 1
        return level


Opened = Sequence[tuple[Part, "pa.NativeFile"]]
"""Parts whose files are open."""


class Parts:
    """The parts of one folder."""

    def __init__(self, folder: Location, schema: pa.Schema, merge: Merge = lambda table: table) -> None:
        """``schema`` has the columns of every table. A part of an earlier version may lack some: they are null."""
        self.folder, self.schema, self._merge = folder, schema, merge
        self._parts: list[Part] | None = None
        self._recent: dict[str, pa.Table] = {}
        """Tables of the parts of low levels that this writer wrote, so that a merge does not read them."""

    @property
    def parts(self) -> list[Part]:
        """Parts as the writer knows them: listed once, and kept up to date by `append`."""
        if self._parts is None:
            self.remove_torn()
            names = self.folder.sizes()
            self._parts = _uncovered(self.folder, names)
            # A killed merge left parts that its result covers, and a killed write an incomplete file.
            current = {part.name for part in self._parts}
            for name in names:
                if name not in current and (NAME.fullmatch(name) or INCOMPLETE.fullmatch(name)):
                    (self.folder / name).delete()
        return self._parts

    def remove_torn(self) -> None:
        """Remove a last part whose content does not fit its name, where a killed writer can leave one.

        On a disk a part appears complete, so such a part is damaged. Elsewhere its commit did not end.
        """
        if self.folder.local is not None:
            return
        parts = _uncovered(self.folder, self.folder.sizes())
        if parts:
            path = self.folder / parts[-1].name
            if hashlib.sha256(path.read_bytes()).hexdigest()[:16] != parts[-1].digest:
                path.delete()

    def append(self, table: pa.Table) -> None:
        """Write a table as the next commit; merge parts if it completes a level."""
        with self._listed_again():
            number = self.parts[-1].last + 1 if self.parts else 0
            self.parts.append(self._write(table, number, number))
            while len(tail := self.parts[-FAN:]) == FAN and len({part.level for part in tail}) == 1:
                if tail[0].level >= LEVELS:
                    return
                self._merge_parts(tail)

    def compact(self) -> int:
        """Merge each run of parts that are below the highest level to one part; return the number of parts before."""
        before = len(self.parts)
        run: list[Part] = []
        with self._listed_again():
            for part in list(self.parts):
                if part.level < LEVELS:
                    run.append(part)
                if run and (part.level >= LEVELS or part.last - run[0].first + 1 >= FAN**LEVELS):
                    self._merge_parts(run)
                    run = []
            self._merge_parts(run)
        return before

    @contextmanager
    def _listed_again(self) -> Iterator[None]:
        """List the folder again after an exception, because the write that it interrupted may be complete."""
        try:
            yield
        except BaseException:
            self._parts = None
            raise

    def read_all(self) -> list[pa.Table]:
        """Read the tables of all parts in order. A part that a writer merges meanwhile is read from the merged one."""
        return list(self.read(self.open_all()))

    def open_all(self) -> list[tuple[Part, pa.NativeFile]]:
        """List the folder and open all parts, so that a later merge does not disturb the reader.

        An open file of a disk can be read after its removal. Elsewhere the content is read at once.
        """
        for attempt in range(ATTEMPTS):
            try:
                return [(part, self._open(part)) for part in _uncovered(self.folder, self.folder.sizes())]
            except UserError:
                if attempt == ATTEMPTS - 1:
                    raise
            except OSError as error:
                if attempt == ATTEMPTS - 1:
                    raise UserError(f"{self.folder}: cannot be read ({_line(error)}); try again") from error
        raise AssertionError

    def _open(self, part: Part) -> pa.NativeFile:
        import pyarrow as pa

        path = self.folder / part.name
        return path.open() if path.local is not None else pa.BufferReader(path.read_bytes())

    def read(self, opened: Opened, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Read the tables of opened parts one by one; they may be read again. UserError names a damaged part."""
        names = list(columns or self.schema.names)
        for part, file in opened:
            yield self._read(part, file, names)

    def _read(self, part: Part, file: pa.NativeFile, names: list[str]) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / part.name
        try:
            file.seek(0)
            content = file.read()
            if hashlib.sha256(content).hexdigest()[:16] != part.digest:
                raise UserError(f"{path}: damaged, its content does not fit its name; copy it again")
            stored = pq.ParquetFile(pa.BufferReader(content))
            present = [name for name in names if name in stored.schema_arrow.names]
            table = stored.read(columns=present, use_threads=False)
            for name in names:
                if name not in present:
                    table = table.append_column(name, pa.nulls(table.num_rows, self.schema.field(name).type))
            return table.select(names).cast(pa.schema([self.schema.field(name) for name in names]))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: cannot be read ({_line(error)}); copy it again") from error

    def _merge_parts(self, parts: list[Part]) -> None:
        """Replace adjacent parts by one."""
        import pyarrow as pa

        if len(parts) < 2:
            return
        tables = [self._recent.pop(part.name, None) or self._load(part) for part in parts]
        table = self._merge(pa.concat_tables(tables))
        merged = self._write(table, parts[0].first, parts[-1].last)
        first = self.parts.index(parts[0])
        self.parts[first : first + len(parts)] = [merged]
        for part in parts:
            (self.folder / part.name).delete()

    def _load(self, part: Part) -> pa.Table:
        with (self.folder / part.name).open() as file:
            return self._read(part, file, self.schema.names)

    def _write(self, table: pa.Table, first: int, last: int) -> Part:
        import pyarrow as pa
        import pyarrow.parquet as pq

        out, table = pa.BufferOutputStream(), table.cast(self.schema)
        pq.write_table(table, out, compression="zstd", write_statistics=False)
        content = out.getvalue()
        digest = hashlib.sha256(content).hexdigest()[:16]
        span = f"{first:08d}" if first == last else f"{first:08d}-{last:08d}"
        part = Part(f"{span}-{digest}.parquet", first, last, digest)
        (self.folder / part.name).write_bytes(memoryview(content))
        if part.level < LEVELS - 1:
            self._recent[part.name] = table
        return part


def _uncovered(folder: Location, names: Sequence[str] | dict[str, int]) -> list[Part]:
    """Return the parts among file names in order, without those that a wider part covers.

    Raise UserError if commits are missing, or if two parts overlap, which two writers at a time cause.
    """
    parts = []
    for name in names:
        if match := NAME.fullmatch(name):
            first, last, digest = match.groups()
            parts.append(Part(name, int(first), int(last or first), digest))
    result: list[Part] = []
    for part in sorted(parts, key=lambda part: (part.first, -part.last, part.name)):
        end = result[-1].last if result else -1
        is_double = bool(result) and part.first == part.last == result[-1].first == result[-1].last
        if part.last <= end and not is_double:
            continue
        if part.first != end + 1:
            problem = "is missing" if part.first > end + 1 else "exists twice: two writers were active"
            raise UserError(
                f"{folder}: part {min(part.first, end + 1):08d} {problem}; copy the data set again"
            )
        result.append(part)
    return result


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
