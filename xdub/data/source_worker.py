"""The work on a unit of sources: prepare each, write its clips into shards, return facts and ledger rows."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from xdub.data.clip import Clip, to_row
from xdub.data.ledger import LedgerRow
from xdub.data.outcome import Outcome
from xdub.data.packing import ShardPacker
from xdub.data.remote_sources import RemoteSource
from xdub.data.sources import content_of
from xdub.errors import UserError
from xdub.files.storage import Location
from xdub.files.uris import first_line

Prepare = Callable[[str], Iterable[Clip | LedgerRow]]
"""Function of a source's path that yields its clips and ledger rows lazily, in any order."""
MAX_SOURCES = 16
"""Largest number of sources of a unit."""
MAX_BYTES = 256 << 20
"""Bytes of sources after which a unit is complete."""
UNITS = 64
"""Number of units below which sources are not packed, so that a few sources keep many workers busy."""


@dataclass(frozen=True, kw_only=True)
class SourceJob:
    """One source of a unit."""

    name: str
    """Name of the source in this call."""
    input: str
    """Name of the source in the ledger."""
    files: tuple[str, ...] = ()
    """Files on a disk whose content the worker has to hash; () if the content is known or the source has no files."""
    remote: RemoteSource | None = None
    """Files in an object store."""


@dataclass(frozen=True)
class SourceUnit:
    """Sources that one worker prepares and that are committed together."""

    number: int
    jobs: tuple[SourceJob, ...]


@dataclass(kw_only=True)
class SourceOutcome(Outcome):
    """Result of a unit of sources."""

    names: list[str] = field(default_factory=list)
    """Names of the unit's sources."""
    contents: dict[str, str] = field(default_factory=dict)
    """Hash of the files by source, of those that the worker hashed."""


def pack_sources(jobs: Sequence[tuple[SourceJob, int]]) -> Iterator[SourceUnit]:
    """Pack (source, bytes) in order into units of up to `MAX_SOURCES` sources or `MAX_BYTES`.

    The units depend on the sources alone, so a repeated call and any number of workers write the same shards.
    """
    most = max(1, min(MAX_SOURCES, len(jobs) // UNITS))
    number, unit, total = 0, [], 0
    for job, size in jobs:
        unit.append(job)
        total += size
        if len(unit) >= most or total >= MAX_BYTES:
            yield SourceUnit(number, tuple(unit))
            number, unit, total = number + 1, [], 0
    if unit:
        yield SourceUnit(number, tuple(unit))


def split_unit(unit: SourceUnit) -> list[SourceUnit]:
    """Return a unit for each source."""
    return [SourceUnit(unit.number, (job,)) for job in unit.jobs]


def failed_unit(unit: SourceUnit, reason: str) -> SourceOutcome:
    """Return the outcome of a unit whose workers died: every source fails."""
    rows = [LedgerRow(input=job.input, status="failed", check="worker", message=reason) for job in unit.jobs]
    return SourceOutcome(number=unit.number, ledger=rows, names=[job.name for job in unit.jobs])


class SourceWorker:
    """Worker of the pool that prepares sources; the function that prepares one is built once."""

    def __init__(self, factory: Callable[[], Prepare], out: Location, rows_per_shard: int) -> None:
        """Load the networks.

        Args:
            factory: returns the function that prepares a source.
            out: folder of the shards.
            rows_per_shard: largest number of clips of a shard.
        """
        self.name = socket.gethostname()
        self._prepare, self._out, self._rows_per_shard = factory(), out, rows_per_shard

    def run(self, unit: SourceUnit) -> SourceOutcome:
        """Prepare all sources of a unit. A source that fails gets a ledger row and leaves no clip."""
        outcome = SourceOutcome(number=unit.number)
        packer = ShardPacker(self._out, self._rows_per_shard)
        for job in unit.jobs:
            begin = time.monotonic()
            rows, content = self._source(job, packer)
            seconds = time.monotonic() - begin
            worker = f"{self.name}:{os.getpid()}"
            outcome.ledger += [
                replace(
                    row,
                    input=job.input,
                    worker=row.worker or worker,
                    seconds=row.seconds or seconds / len(rows),
                )
                for row in rows
            ]
            outcome.names.append(job.name)
            if content:
                outcome.contents[job.name] = content
            outcome.seconds["prepare"] = outcome.seconds.get("prepare", 0.0) + seconds
        outcome.shards, outcome.dropped = packer.close(), packer.dropped
        return outcome

    def _source(self, job: SourceJob, packer: ShardPacker) -> tuple[list[LedgerRow], str]:
        """Prepare one source; return its rows and the hash of its files, empty if it is known."""
        with ExitStack() as stack:
            try:
                path, files = stack.enter_context(_opened(job))
            except OSError as error:
                message = f"{job.name}: cannot be copied ({first_line(error)})"
                return [LedgerRow(input=job.name, status="failed", check="file", message=message)], ""
            # Hash before the work, so that a file that changes during it is noticed by the next call.
            content = content_of(files) if files else ""
            rows = self._rows(path, packer)
        if job.remote is not None:
            # The copy's path means nothing to the user.
            rows = [replace(row, message=row.message.replace(path, job.name)) for row in rows]
        return rows, content

    def _rows(self, path: str, packer: ShardPacker) -> list[LedgerRow]:
        """Prepare the source at a path; its errors become ledger rows, those of the shards' folder are raised."""
        kept: list[str] = []
        rows: list[LedgerRow] = []
        for item in self._items(path):
            if isinstance(item, LedgerRow):
                rows.append(item)
            else:
                packer.add(item)
                kept.append(item["clip_id"])
        if failed := [row for row in rows if row.status == "failed"]:
            packer.drop()
            # Any other row would settle the source, and no later call would try it again.
            return failed
        packer.keep()
        with_row = {row.clip_id for row in rows}
        rows += [LedgerRow(input=path, clip_id=i, status="kept") for i in kept if i not in with_row]
        return rows or [LedgerRow(input=path, status="rejected", check="clips", value=0.0, threshold=1.0)]

    def _items(self, path: str) -> Iterator[dict[str, Any] | LedgerRow]:
        """Yield the clips, as rows of shards, and the ledger rows of a source; an error ends it with a row."""
        try:
            for item in self._prepare(path):
                yield item if isinstance(item, LedgerRow) else to_row(item)
        except UserError as error:
            # The rest of the source is unusable, so no later call tries it again.
            yield LedgerRow(input=path, status="rejected", check="readable", message=str(error))
        except Exception as error:
            # The program may have a defect, so the next call tries the source again.
            yield LedgerRow(input=path, status="failed", message=f"{type(error).__name__}: {error}")


@contextmanager
def _opened(job: SourceJob) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the path of a source on this machine, and its files if their content has to be hashed."""
    if job.remote is None:
        yield job.name, job.files
        return
    with job.remote.fetched() as path:
        files = [path] if path.is_file() else [path / file.location.name for file in job.remote.files]
        yield str(path), [str(file) for file in files]
