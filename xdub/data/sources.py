"""The sources of a data set, known by their content: DIR/sources.jsonl.

    {"input", "files": [[path, bytes, mtime_ns], ...], "sha256"}

A line names the ledger's input with this content, and a state of the files that had it. Files with a recorded path,
size and time are known without being read. A source of another size than every recorded one is new. All others are
hashed, so a folder that was moved is read once more, and a copy is no second source. The newest line of a state counts.

A source without a line is known by its path, as in data sets of earlier versions.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from xdub.data.ledger import Ledger
from xdub.files.content import file_sha256
from xdub.files.lines import LineFile, read_lines

SOURCES = "sources.jsonl"
"""File name of the list in a data set."""

FilesOf = Callable[[str], Sequence[Path]]
"""Function of a source's name that lists its files."""
State = tuple[tuple[str, int, int], ...]
"""(real path, bytes, time of change in ns) of each file of a source."""


@dataclass(kw_only=True)
class Source:
    """One source of a call."""

    name: str
    """Path as the caller passed it."""
    input: str
    """Name in the ledger: the path under which the content was first seen."""
    files: tuple[str, ...] = ()
    """Paths of the files; () for a name without files."""
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

    def __init__(self, folder: str | Path, ledger: Ledger) -> None:
        """Read the list; without one, all sources are known by path."""
        self._path, self._ledger = Path(folder) / SOURCES, ledger
        self._file: LineFile | None = None
        self._by_state: dict[State, str] = {}
        self._by_content: dict[str, str] = {}
        self._by_real_paths: dict[tuple[str, ...], str] = {}
        """Inputs by the first paths of their files."""
        self._inputs: set[str] = set()
        self._sizes: set[tuple[int, ...]] = set()
        for line in read_lines(self._path):
            state = tuple((path, size, time) for path, size, time in line["files"])
            self._store(Source(name="", input=line["input"], state=state, content=line["sha256"]))
        earlier = {row.input for row in ledger.rows()} - self._inputs
        self._by_path = {os.path.abspath(name): name for name in earlier}
        """Inputs of earlier versions, which recorded no content, by absolute path."""

    def identify(
        self, names: Iterable[str], files_of: FilesOf, on_hash: Callable[[str], None] = lambda name: None
    ) -> list[Source]:
        """Return the different sources among ``names`` in order; ``on_hash`` is called with each that is hashed."""
        sources = [_source(name, files_of) for name in dict.fromkeys(names)]
        unknown = [each for each in sources if not self._find_state(each)]
        sizes = Counter(each.sizes for each in {each.state: each for each in unknown}.values())
        doubtful = [
            each for each in unknown if each.state and (each.sizes in self._sizes or sizes[each.sizes] > 1)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            hashes = pool.map(lambda each: content_of(each.files), doubtful)
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
        for each in sources:
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
        """Append a source, and its copies, under the ledger's name of the source, unless the states are recorded."""
        for each in (source, *source.copies):
            each.input, each.content = source.input, each.content or source.content
            if each.content and each.state and self._by_state.get(each.state) != each.input:
                self._store(each)
                self._file = self._file or LineFile(self._path)
                self._file.append({"input": each.input, "files": each.state, "sha256": each.content})

    def close(self) -> None:
        """Close the list; its lines are complete even without this call."""
        if self._file is not None:
            self._file.close()

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


def content_of(files: Sequence[str]) -> str:
    """Return the sha256 of a file, or of the names and hashes of several; empty if one cannot be read."""
    try:
        hashes = [file_sha256(Path(file)) for file in files]
    except OSError:
        return ""
    if len(files) == 1:
        return hashes[0]
    named = [f"{Path(file).stem.lower()} {digest}" for file, digest in zip(files, hashes, strict=True)]
    return hashlib.sha256("\n".join(named).encode()).hexdigest()


def own_file(source: str) -> list[Path]:
    """Return the file that a source is; a source may also be a name without a file."""
    return [Path(source)] if Path(source).is_file() else []


def _source(name: str, files_of: FilesOf) -> Source:
    files: list[str] = []
    try:
        files = [str(file) for file in files_of(name)]
        stats = [(os.path.realpath(file), os.stat(file)) for file in files]
    except OSError:
        stats = []
    state = tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
    return Source(name=name, input=name, files=tuple(files), state=state)
