"""Ingest of many sources into clip shards and a ledger, in this process or in Ray Data tasks.

The function that prepares one source is an argument, so every kind of source uses the same code. Tasks prepare and
encode; only this process writes. A source that crashes its worker is tried twice more, after all others, and then
recorded as failed.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import time
import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xdub.data.clip import Clip, to_row
from xdub.data.ledger import Counts, Ledger, LedgerRow
from xdub.data.shards import ShardWriter, check_utf8
from xdub.data.sources import FilesOf, Source, Sources, content_of, own_file
from xdub.errors import UserError
from xdub.files.folders import why_unreadable
from xdub.progress import Report
from xdub.ray_machines import wait_for_worker
from xdub.ray_session import disconnect, ensure_ray, hush

Prepare = Callable[[str], Iterable[Clip | LedgerRow]]
"""Function of a source that yields its clips and ledger rows lazily, in any order; picklable if workers call it."""

FOLDER = "folder"
"""Check of a folder that could not be listed."""
ATTEMPTS = 3
"""Attempts at a source whose workers die, before the source is recorded as failed."""


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
    sources: Sequence[str | Path],
    out: str | Path,
    prepare_one: Prepare,
    *,
    kind: str = "clips",
    files_of: FilesOf = own_file,
    manifest_recipe: dict[str, Any] | None = None,
    workers: int | None = None,
    rows_per_shard: int = 32,
    on_progress: Report | None = None,
) -> Ingested:
    """Add the clips of all sources to the data set OUT and its ledger. A killed call can be repeated at any time.

    Args:
        kind: content of OUT, "clips" or "pairs".
        files_of: lists the files of a source, whose content identifies it (`xdub.data.sources`).
        manifest_recipe: settings that all clips of OUT share, stored in its manifest.
        workers: 1 runs in this process, more use Ray; default: 1 for a single source, else one per CPU.

    Raises:
        UserError: OUT holds no clip in the end; the message has the reason of the first source.
    """
    for source in sources:
        check_utf8(source)
    writer = ShardWriter(out, rows_per_shard, kind=kind, recipe=manifest_recipe)
    ledger = Ledger(out)
    with closing(Sources(out, ledger)) as recorded:
        named = list(dict.fromkeys(map(str, sources)))

        def show_hash(name: str) -> None:
            if on_progress is not None:
                on_progress(0, len(named), text=f"comparing {Path(name).name}")

        different = recorded.identify(named, files_of, show_hash)
        todo = {source.name: source for source in different if not recorded.settled(source)}
        for source in different:
            if source.name not in todo:
                recorded.record(source)
        _forget_readable_folders(ledger, {source.input for source in different})
        workers = workers or min(len(todo), os.cpu_count() or 1)
        items = [(source.name, () if source.content else source.files) for source in todo.values()]
        results = _local(items, prepare_one) if workers <= 1 else _ray(items, prepare_one, workers)
        before, done = len(writer), len(different) - len(todo)
        unrecorded: list[Source] = []
        complete = True
        try:
            with closing(results):
                for name, row, rows, content in results:
                    if row is not None:
                        writer.add_row(row)
                        continue
                    # Shards go first, because every ledger row with status "kept" must have its clip on disk.
                    writer.flush()
                    complete = False
                    unrecorded += _settle(todo[name], rows, content, ledger, recorded)
                    complete = True
                    if ledger.flush_in_turn():
                        _record(unrecorded, recorded)
                    done += 1
                    if on_progress is not None:
                        on_progress(done, len(different), text=Path(name).name)
        finally:
            # A source that a signal interrupted between its rows is prepared again.
            if complete and ledger.changed:
                ledger.flush()
                _record(unrecorded, recorded)
    writer.close()
    ledger.flush()
    inputs = dict.fromkeys(source.input for source in different)
    if not len(writer):
        reason = f"{_reason(ledger, list(inputs))}; {ledger.path} lists the reason of every source"
        raise UserError(f"no {kind.removesuffix('s')} could be created; {reason}")
    return Ingested(
        clips=len(writer) - before,
        sources=len(different),
        settled=len(different) - len(todo),
        copies=sum(len(source.copies) for source in different),
        counts=ledger.counts(inputs.keys()),
    )


def _settle(
    source: Source, rows: list[LedgerRow], content: str, ledger: Ledger, recorded: Sources
) -> list[Source]:
    """Add the ledger rows of a source that is done; return the source if its content follows when they are on disk."""
    source.content = source.content or content
    failed = any(row.status == "failed" for row in rows)
    if not source.changed:
        # The content goes first, so that it is never missing beside rows after a kill.
        recorded.record(source)
    elif not failed:
        ledger.reopen(source.input)
    for row in rows:
        ledger.add(replace(row, input=source.input))
    # The content of a changed source goes last. If it is missing after a kill, the source is prepared again.
    return [source] if source.changed and not failed else []


def _record(sources: list[Source], recorded: Sources) -> None:
    """Record sources whose rows are on disk, and empty the list."""
    for source in sources:
        recorded.record(source)
    sources.clear()


def _forget_readable_folders(ledger: Ledger, inputs: Collection[str]) -> None:
    """Remove the rows of folders that could not be listed by an earlier call and can be now."""
    for row in ledger.rows():
        if row.check == FOLDER and row.input not in inputs and why_unreadable(Path(row.input)) is None:
            ledger.reopen(row.input)


def _reason(ledger: Ledger, names: Sequence[str]) -> str:
    """Return why the first source has no clip, from this or an earlier call."""
    for row in ledger.rows():
        if row.input in names[:1] and row.status != "kept":
            message = row.message or row.check
            return message if message.startswith(row.input) else f"{row.input}: {message}"
    return "no source was given"


Result = tuple[str, dict[str, Any] | None, list[LedgerRow], str]
"""(source, clip row, [], "") for each clip, then (source, None, ledger rows, content) when the source is done."""
Item = tuple[str, tuple[str, ...]]
"""(source, its files if their content is not known yet)"""


def _results(source: str, files: Sequence[str], prepare_one: Prepare) -> Iterator[Result]:
    """Yield all results of one source; its errors become ledger rows."""
    # Hash before the work, so that a file that changes during it is noticed by the next call.
    content = content_of(files) if files else ""
    begin, worker = time.monotonic(), f"{socket.gethostname()}:{os.getpid()}"
    kept: list[str] = []
    rows: list[LedgerRow] = []
    try:
        for item in prepare_one(source):
            if isinstance(item, LedgerRow):
                rows.append(item)
            else:
                yield source, to_row(item), [], ""
                kept.append(item.clip_id)
    except UserError as error:
        # The source is unusable, so no later call tries it again.
        rows = [LedgerRow(input=source, status="rejected", check="readable", message=str(error))]
    except Exception as error:
        # The program may have a defect, so the next call tries the source again.
        rows = [LedgerRow(input=source, status="failed", message=f"{type(error).__name__}: {error}")]
    with_row = {row.clip_id for row in rows}
    if not any(row.status == "failed" for row in rows):
        rows += [LedgerRow(input=source, clip_id=i, status="kept") for i in kept if i not in with_row]
        rows = rows or [LedgerRow(input=source, status="rejected", check="clips", value=0.0, threshold=1.0)]
    seconds = (time.monotonic() - begin) / len(rows)
    yield (
        source,
        None,
        [replace(row, worker=row.worker or worker, seconds=row.seconds or seconds) for row in rows],
        content,
    )


def _local(items: Sequence[Item], prepare_one: Prepare) -> Generator[Result]:
    for source, files in items:
        yield from _results(source, files, prepare_one)


def _ray(items: Sequence[Item], prepare_one: Prepare, workers: int) -> Generator[Result]:
    """Yield the results of `_local` in the same order, computed by up to `workers` processes.

    A source whose worker died is tried again after all others, so a source that kills workers delays no other.
    """
    with _running_ray(workers):
        missing = dict(items)
        for _ in range(ATTEMPTS):
            for result in _round(list(missing.items()), prepare_one, workers):
                if result[1] is None:
                    missing.pop(result[0])
                yield result
            if not missing:
                return
        for source in missing:
            message = f"its worker died {ATTEMPTS} times"
            yield source, None, [LedgerRow(input=source, status="failed", message=message)], ""


def _round(items: list[Item], prepare_one: Prepare, workers: int) -> Generator[Result]:
    """Run Ray Data once over the sources; a source whose worker dies has no final result."""
    import ray.data

    def prepare_block(rows: Any) -> Iterator[Any]:
        # Results leave the worker clip by clip, so a long video needs no more memory.
        for item in rows["item"]:
            source, files = json.loads(item)
            for result in _results(source, files, prepare_one):
                yield {"result": [pickle.dumps(result)]}

    data = ray.data.from_items([{"item": json.dumps(item)} for item in items], override_num_blocks=len(items))
    # The order is preserved, so that the same sources are written to the same shards.
    data.context.execution_options.preserve_order = True
    hush(data)
    # A block is a source, and the caller tries missing sources again.
    data.context.max_errored_blocks = -1
    # Tasks instead of actors: a death costs its own source, and no later source waits for a dead actor.
    with warnings.catch_warnings():
        # Ray 2.60 warns about a new name of the last argument that it does not accept yet.
        warnings.simplefilter("ignore")
        data = data.map_batches(
            prepare_block,
            batch_size=1,
            compute=ray.data.TaskPoolStrategy(size=min(workers, len(items))),
            num_cpus=1,
            ray_remote_args_fn=lambda: {"max_retries": 0},
        )
    for packed in data.iter_rows():
        yield pickle.loads(packed["result"])


@contextmanager
def _running_ray(workers: int) -> Iterator[None]:
    """Connect to Ray, or start it and shut it down at the end; a Ray of the caller stays."""
    started = ensure_ray(cpus=workers)
    try:
        wait_for_worker("prepare", {"CPU": 1}, for_machines=True)
        yield
    finally:
        if started:
            disconnect()
