"""The sources of a data set, known by their content: DIR/sources/, append-only parts (`xdub.data.parts`).

A row names the ledger's input with this content, and a state of the files that had it. Files with a recorded path,
size and time are known without being read. A source of another size than every recorded one is new. All others are
hashed, so a folder that was moved is read once more, and a copy is no second source. The newest row of a state counts.

Earlier versions wrote the rows into DIR/sources.jsonl, which is read before the parts. A source without a row is known
by its path, as in still earlier data sets.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from xdub.data.ledger import Ledger
from xdub.data.parts import Parts
from xdub.data.remote_sources import RemoteSource
from xdub.files.content import file_sha256
from xdub.files.storage import CHUNK, Location

if TYPE_CHECKING:
    import pyarrow as pa

SOURCES, EARLIER = "sources", "sources.jsonl"
"""Folder of the list in a data set, and file of the list of earlier versions."""

FilesOf = Callable[[str], Sequence[Path]]
"""Function of a source's name that lists its files."""
State = tuple[tuple[str, int, int], ...]
"""(real path or URI, bytes, time of change in ns) of each file of a source."""


@dataclass(kw_only=True)
class Source:
    """One source of a call."""

    name: str
    """Path as the caller passed it."""
    input: str
    """Name in the ledger: the path under which the content was first seen."""
    files: tuple[str, ...] = ()
    """Paths of the files on a disk; () for a name without files."""
    remote: RemoteSource | None = None
    """Files in an object store."""
    state: State = ()
    """State of the files; () if one of them cannot be found."""
    content: str = ""
    """Hash of the files; empty until it is needed."""
    changed: bool = False
    """True if the files of a settled input were replaced by others."""
    copies: list[Source] = field(default_factory=list)
    """Other sources of the call with the same content."""

    @property
    def real_paths(self) -> tuple[str, ...]:
        """Real path of each file."""
        return tuple(path for path, _, _ in self.state)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each file."""
        return tuple(size for _, size, _ in self.state)


class Sources:
    """The recorded sources of a data set."""

    def __init__(self, folder: Location, ledger: Ledger) -> None:
        """Read the list; without one, all sources are known by path."""
        self._parts, self._ledger = Parts(folder / SOURCES, _schema()), ledger
        # The list has one reader, the writer of the set, which first removes what a killed one left.
        _ = self._parts.parts
        self._new: list[Source] = []
        """Rows that are not on disk yet."""
        self._by_state: dict[State, str] = {}
        self._by_content: dict[str, str] = {}
        self._by_real_paths: dict[tuple[str, ...], str] = {}
        """Inputs by the first paths of their files."""
        self._inputs: set[str] = set()
        self._sizes: set[tuple[int, ...]] = set()
        for source in (*_read_earlier(folder / EARLIER), *_read_parts(self._parts)):
            self._store(source)
        earlier = ledger.inputs() - self._inputs
        self._by_path = {os.path.abspath(name): name for name in earlier}
        """Inputs of earlier versions, which recorded no content, by absolute path."""

    def identify(
        self,
        sources: Iterable[str | RemoteSource],
        files_of: FilesOf,
        on_hash: Callable[[str], None] = lambda name: None,
    ) -> list[Source]:
        """Return the different ones of ``sources`` in order; ``on_hash`` is called with each that is hashed."""
        named = [_source(each, files_of) for each in {str(each): each for each in sources}.values()]
        unknown = [each for each in named if not self._find_state(each)]
        sizes = Counter(each.sizes for each in {each.state: each for each in unknown}.values())
        doubtful = [
            each for each in unknown if each.state and (each.sizes in self._sizes or sizes[each.sizes] > 1)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            hashes = pool.map(_content, doubtful)
            for each, content in zip(doubtful, hashes, strict=True):
                each.content = content
                on_hash(each.name)
        new: dict[object, Source] = {}
        for each in unknown:
            self._find_content(each)
            first = new.setdefault(each.content or each.state or each.name, each)
            each.input, each.changed = first.input, first.changed
        different: dict[object, Source] = {}
        states: set[State] = set()
        for each in named:
            # A changed file may have the ledger's name of another that was moved away from its path.
            key = (each.input, each.content or each.state) if each.changed else each.input
            first = different.setdefault(key, each)
            if each.state not in states:
                first.copies += [] if first is each else [each]
            states.add(each.state)
        return list(different.values())

    def settled(self, source: Source) -> bool:
        """Return whether a source needs no work."""
        return not source.changed and self._ledger.settled(source.input)

    def record(self, source: Source) -> None:
        """Add a source, and its copies, under the ledger's name of the source, unless the states are recorded.

        The rows are on disk after the next `flush`.
        """
        for each in (source, *source.copies):
            each.input, each.content = source.input, each.content or source.content
            if each.content and each.state and self._by_state.get(each.state) != each.input:
                self._store(each)
                self._new.append(each)

    def flush(self) -> None:
        """Write the rows that are not on disk as one part."""
        import pyarrow as pa

        if self._new:
            rows = [
                {"input": each.input, "sha256": each.content}
                | {name: [entry[n] for entry in each.state] for n, name in enumerate(STATE_COLUMNS)}
                for each in self._new
            ]
            self._parts.append(pa.Table.from_pylist(rows, schema=_schema()))
            self._new = []

    def _store(self, source: Source) -> None:
        self._by_state[source.state] = source.input
        self._by_content[source.content] = source.input
        if source.input not in self._inputs:
            self._by_real_paths[source.real_paths] = source.input
            self._inputs.add(source.input)
        self._sizes.add(source.sizes)

    def _find_state(self, source: Source) -> bool:
        """Set the input of a source by the state of its files; return whether it is recorded."""
        if source.state in self._by_state:
            source.input = self._by_state[source.state]
            return True
        for path in (os.path.abspath(source.name), os.path.realpath(source.name)):
            if (earlier := self._by_path.get(path)) is not None:
                source.input = earlier
                return self._ledger.settled(earlier)
        return False

    def _find_content(self, source: Source) -> None:
        """Set the input of a source whose state is not recorded, by its content, or else by its files' first paths."""
        if source.content in self._by_content:
            source.input = self._by_content[source.content]
        else:
            source.input = self._by_real_paths.get(source.real_paths, source.input)
            source.changed = bool(source.state) and self._ledger.settled(source.input)


def content_of(files: Sequence[str | Location]) -> str:
    """Return the sha256 of a file, or of the names and hashes of several; empty if one cannot be read."""
    try:
        hashes = [_sha256(file) for file in files]
    except OSError:
        return ""
    if len(files) == 1:
        return hashes[0]
    named = [
        f"{Path(file.name if isinstance(file, Location) else file).stem.lower()} {digest}"
        for file, digest in zip(files, hashes, strict=True)
    ]
    return hashlib.sha256("\n".join(named).encode()).hexdigest()


def own_file(source: str) -> list[Path]:
    """Return the file that a source is; a source may also be a name without a file."""
    return [Path(source)] if Path(source).is_file() else []


STATE_COLUMNS = ("paths", "bytes", "changed_ns")
"""Columns of the entries of a state."""


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"input": pa.string(), "sha256": pa.string(), "paths": pa.list_(pa.string())}
    return pa.schema(kinds | dict.fromkeys(STATE_COLUMNS[1:], pa.list_(pa.int64())))


def _read_earlier(file: Location) -> Iterator[Source]:
    """Yield the records of earlier versions; a torn last line is dropped."""
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    for line in map(json.loads, lines):
        state = tuple((path, size, time) for path, size, time in line["files"])
        yield Source(name="", input=line["input"], state=state, content=line["sha256"])


def _read_parts(parts: Parts) -> Iterator[Source]:
    for table in parts.read_all():
        for row in table.to_pylist():
            state = tuple(zip(*(row[name] for name in STATE_COLUMNS), strict=True))
            yield Source(name="", input=row["input"], state=state, content=row["sha256"])


def _content(source: Source) -> str:
    if source.remote is not None:
        return content_of([file.location for file in source.remote.files])
    return content_of(source.files)


def _sha256(file: str | Location) -> str:
    if not isinstance(file, Location):
        return file_sha256(Path(file))
    digest = hashlib.sha256()
    with file.fs.open_input_stream(file.path) as stream:
        while piece := stream.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _source(source: str | RemoteSource, files_of: FilesOf) -> Source:
    if isinstance(source, RemoteSource):
        state = tuple((str(file.location), file.bytes, file.changed_ns) for file in source.files)
        return Source(name=source.name, input=source.name, state=state, remote=source)
    files: list[str] = []
    try:
        files = [str(file) for file in files_of(source)]
        stats = [(os.path.realpath(file), os.stat(file)) for file in files]
    except OSError:
        stats = []
    state = tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
    return Source(name=source, input=source, files=tuple(files), state=state)
