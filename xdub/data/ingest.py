"""Ingest of many sources into clip shards and a ledger, by one worker in this process or by a pool of them.

Workers prepare sources and write shards; this process commits facts about the shards in the order of the sources. A
source that kills its workers costs only itself. A killed call can be repeated at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xdub.data.dataset import DataSet
from xdub.data.ledger import Counts, Ledger
from xdub.data.remote_sources import RemoteSource
from xdub.data.run_line import RunLine
from xdub.data.shards import check_utf8
from xdub.data.source_worker import (
    Prepare,
    SourceJob,
    SourceOutcome,
    SourceUnit,
    SourceWorker,
    failed_unit,
    pack_sources,
    split_unit,
)
from xdub.data.sources import FilesOf, Source, Sources, own_file
from xdub.errors import UserError
from xdub.files.folders import why_unreadable
from xdub.files.storage import Location, locate
from xdub.pool import WorkerPool, Workers, pool_size
from xdub.progress import Report

FOLDER = "folder"
"""Check of a folder that could not be listed."""
ROWS_PER_SHARD = 32
"""Default of the largest number of clips in a shard."""


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """Result of one call of `ingest`."""

    clips: int
    """Number of clips that were added."""
    sources: int
    """Number of different sources."""
    settled: int
    """Number of sources that an earlier call had completed."""
    copies: int
    """Number of further sources with the content of another; they are skipped."""
    counts: Counts
    """Ledger rows of these sources by status."""


def ingest(
    sources: Sequence[str | Path | RemoteSource],
    out: str | Path | Location,
    factory: Callable[[], Prepare],
    *,
    verb: str = "prepare",
    kind: str = "clips",
    files_of: FilesOf = own_file,
    manifest_recipe: dict[str, Any] | None = None,
    workers: int | Workers | None = None,
    gpus: float | None = 0,
    rows_per_shard: int = ROWS_PER_SHARD,
    on_progress: Report | None = None,
) -> Ingested:
    """Add the clips of all sources to the data set OUT and its ledger. A killed call can be repeated at any time.

    Args:
        out: a folder, or a URI such as ``s3://bucket/folder``.
        factory: returns the function that prepares a source; each worker calls it once, so it loads the networks.
        verb: name of the pool in messages.
        kind: content of OUT, "clips" or "pairs".
        files_of: lists the files of a source on a disk, whose content identifies it (`xdub.data.sources`).
        manifest_recipe: settings that all clips of OUT share, stored in its manifest.
        workers: 1 runs in this process, more use Ray; default: 1 for a single source, else one per CPU. `Workers`
            describes a pool that grows and shrinks.
        gpus: GPUs of a worker; None means one if the cluster has any.

    Raises:
        UserError: OUT holds no clip in the end; the message has the reason of the first source.
    """
    for source in sources:
        check_utf8(str(source))
    out = locate(out)
    with DataSet(out, kind=kind, recipe=manifest_recipe) as data:
        run = _Run(data, Sources(out, data.ledger), sources, files_of, on_progress)
        size = pool_size(workers, len(run.open), gpus)
        pool = WorkerPool(
            SourceWorker,
            {"factory": factory, "out": out, "rows_per_shard": rows_per_shard},
            size,
            name=verb,
            failed=failed_unit,
            split=split_unit,
            local=not isinstance(workers, Workers) and size.most == 1,
            keep_ray=False,
            on_state=run.line.set_pool,
        )
        for outcome in pool.outcomes(list(run.units())):
            run.commit(outcome)
    if not len(data):
        reason = f"{run.reason()}; {data.ledger.path} lists the reason of every source"
        raise UserError(f"no {kind.removesuffix('s')} could be created; {reason}")
    return run.result()


class _Run:
    """The sources of one call, and the commits of their outcomes."""

    def __init__(
        self,
        data: DataSet,
        recorded: Sources,
        sources: Sequence[str | Path | RemoteSource],
        files_of: FilesOf,
        on_progress: Report | None,
    ) -> None:
        """Find the sources that need work; record other names of those that need none."""
        self._data, self._recorded = data, recorded
        named = [source if isinstance(source, RemoteSource) else str(source) for source in sources]

        def show_hash(name: str) -> None:
            if on_progress is not None:
                on_progress(0, len(named), text=f"comparing {Path(name).name}")

        self.different = recorded.identify(named, files_of, show_hash)
        self.open = {each.name: each for each in self.different if not recorded.settled(each)}
        for source in self.different:
            if source.name not in self.open:
                recorded.record(source)
        recorded.flush()
        inputs = {source.input for source in self.different}
        _forget_readable_folders(data.ledger, inputs)
        self._before = len(data)
        self._counts, self._seconds = Counts(), 0.0
        self.line = RunLine(total=len(self.different), report=on_progress)
        self.line.begin(len(self.different) - len(self.open), self._counts, 0.0)

    def units(self) -> Iterator[SourceUnit]:
        """Yield the units that need work. Sources without work count as well, so a repeated call has the same units."""
        jobs = [(_job(source), sum(source.sizes)) for source in self.different]
        for unit in pack_sources(jobs):
            jobs_left = tuple(job for job in unit.jobs if job.name in self.open)
            if jobs_left:
                yield replace(unit, jobs=jobs_left)

    def commit(self, outcome: SourceOutcome) -> None:
        """Commit a unit: first its shards, last its ledger rows, so that every row "kept" has its clip."""
        failed = {row.input for row in outcome.ledger if row.status == "failed"}
        changed: list[Source] = []
        for name in outcome.names:
            source = self.open[name]
            source.content = source.content or outcome.contents.get(name, "")
            if not source.changed:
                # The content goes first, so that it is never missing beside rows after a kill.
                self._recorded.record(source)
            elif source.input not in failed:
                self._data.ledger.reopen(source.input)
                changed.append(source)
        self._recorded.flush()
        self._data.commit(outcome.shards, outcome.ledger, dropped=outcome.dropped)
        # The content of a changed source goes last. If it is missing after a kill, the source is prepared again.
        for source in changed:
            self._recorded.record(source)
        self._recorded.flush()
        for row in outcome.ledger:
            self._counts.add(row)
        self._seconds += sum(row.seconds for row in outcome.ledger)
        self.line.add(len(outcome.names), self._counts, self._seconds)

    def result(self) -> Ingested:
        """Return the counts of the call."""
        inputs = {source.input for source in self.different}
        return Ingested(
            clips=len(self._data) - self._before,
            sources=len(self.different),
            settled=len(self.different) - len(self.open),
            copies=sum(len(source.copies) for source in self.different),
            counts=self._data.ledger.counts(inputs),
        )

    def reason(self) -> str:
        """Return why the first source has no clip, from this or an earlier call."""
        for source in self.different[:1]:
            for row in self._data.ledger.lookup(source.input):
                if row.status != "kept":
                    message = row.message or row.check
                    return message if message.startswith(row.input) else f"{row.input}: {message}"
        return "no source was given"


def _job(source: Source) -> SourceJob:
    """Return the work on a source, with its files if their content is not known."""
    files = () if source.content or source.remote is not None else source.files
    return SourceJob(name=source.name, input=source.input, files=files, remote=source.remote)


def _forget_readable_folders(ledger: Ledger, inputs: Collection[str]) -> None:
    """Remove the rows of folders that could not be listed by an earlier call and can be now."""
    failed = [row.input for row in ledger.rows() if row.check == FOLDER and row.input not in inputs]
    for name in failed:
        if why_unreadable(Path(name)) is None:
            ledger.reopen(name)
