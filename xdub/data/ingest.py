"""Many sources -> clip shards and a ledger: in this process, or spread over Ray Data actors.

What is done with one source is given as a function, so this graph serves every kind of source. Actors prepare and
encode; this process alone writes. A source that crashes its actor is tried twice more,
after the others, then noted as failed.
"""

from __future__ import annotations

import os
import pickle
import socket
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xdub.data.clip import Clip, to_row
from xdub.data.ledger import Counts, Ledger, LedgerRow
from xdub.data.shards import ShardWriter
from xdub.errors import UserError
from xdub.progress import Report
from xdub.ray_session import ensure_ray, hush

Prepare = Callable[[str, Any], tuple[Iterable[Clip], Iterable[LedgerRow]]]
"""(source, recipe) -> its clips (may be made lazily), and ledger rows, which are read after the clips."""

ATTEMPTS = 3
"""How often an actor may die of a source before the ledger says "failed"."""


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """What became of the sources of one call; `settled` ones had been done by an earlier one."""

    clips: int
    sources: int
    settled: int
    counts: Counts
    """Ledger rows of these sources."""


def ingest(
    sources: Sequence[str | Path],
    out: str | Path,
    recipe: Any,
    prepare_one: Prepare,
    *,
    kind: str = "clips",
    manifest_recipe: Any = None,
    workers: int | None = None,
    rows_per_shard: int = 32,
    on_progress: Report | None = None,
) -> Ingested:
    """Adds the clips of all sources to the data set OUT, with its ledger; can be killed and run again at any time.

    `kind` is what OUT holds, "clips" or "pairs". `workers` = 1 stays in this process, more use Ray; none = 1 for a
    single source, else one a CPU. UserError if not one clip came out and OUT is empty, with the reason of the first
    source.
    """
    writer = ShardWriter(out, rows_per_shard, kind=kind, recipe=manifest_recipe)
    ledger = Ledger(out)
    names = list(dict.fromkeys(str(source) for source in sources))
    todo = [name for name in names if not ledger.settled(name)]
    workers = workers or min(len(todo), os.cpu_count() or 1)
    results = _local(todo, recipe, prepare_one) if workers <= 1 else _ray(todo, recipe, prepare_one, workers)
    before, done = len(writer), len(names) - len(todo)
    with closing(results):
        for source, row, rows in results:
            if row is not None:
                writer.add_row(row)
                continue
            # The shards first: a ledger row that says "kept" must have its clip on disk.
            writer.flush()
            for entry in rows:
                ledger.add(entry)
            ledger.flush()
            done += 1
            if on_progress is not None:
                on_progress(done, len(names), text=Path(source).name)
    writer.close()
    ledger.flush()
    if not len(writer):
        reason = f"{_reason(ledger, names)}; {ledger.path} says it of every source"
        raise UserError(f"no {kind.removesuffix('s')} could be made; {reason}")
    return Ingested(
        clips=len(writer) - before,
        sources=len(names),
        settled=len(names) - len(todo),
        counts=ledger.counts(set(names)),
    )


def _reason(ledger: Ledger, names: Sequence[str]) -> str:
    """What became of the first source, now or in an earlier call."""
    for row in ledger.rows():
        if row.input in names[:1] and row.status != "kept":
            told = row.message or row.check
            return told if told.startswith(row.input) else f"{row.input}: {told}"
    return "no source was given"


Result = tuple[str, dict[str, Any] | None, list[LedgerRow]]
"""(source, clip row, []) for each clip, then (source, None, ledger rows) when the source is done."""


def _results(source: str, recipe: Any, prepare_one: Prepare) -> Iterator[Result]:
    """Everything that one source gives; its errors become ledger rows."""
    begin, worker = time.monotonic(), f"{socket.gethostname()}:{os.getpid()}"
    kept: list[str] = []
    rows: list[LedgerRow] = []
    try:
        clips, ledger_rows = prepare_one(source, recipe)
        for clip in clips:
            yield source, to_row(clip), []
            kept.append(clip.clip_id)
        rows = list(ledger_rows)
    except UserError as error:  # the source is at fault
        rows = [LedgerRow(input=source, status="rejected", check="readable", message=str(error))]
    except Exception as error:  # we are: the ledger says so, and the next run tries again
        rows = [LedgerRow(input=source, status="failed", message=f"{type(error).__name__}: {error}")]
    noted = {row.clip_id for row in rows}
    if not any(row.status == "failed" for row in rows):
        rows += [LedgerRow(input=source, clip_id=i, status="kept") for i in kept if i not in noted]
        rows = rows or [LedgerRow(input=source, status="rejected", check="clips", value=0.0, threshold=1.0)]
    seconds = (time.monotonic() - begin) / len(rows)
    yield (
        source,
        None,
        [replace(row, worker=row.worker or worker, seconds=row.seconds or seconds) for row in rows],
    )


def _local(sources: Sequence[str], recipe: Any, prepare_one: Prepare) -> Generator[Result]:
    for source in sources:
        yield from _results(source, recipe, prepare_one)


def _ray(sources: Sequence[str], recipe: Any, prepare_one: Prepare, workers: int) -> Generator[Result]:
    """The same results in the same order, made by up to `workers` actors.

    A source whose actor died is tried again after all others, in rounds of their own: a retry at once would go to an
    actor that is still coming back, and the deaths that one source causes would use up the retries of the next.
    """
    with _running_ray(workers):
        missing = dict.fromkeys(sources)
        for _ in range(ATTEMPTS):
            for result in _round(list(missing), recipe, prepare_one, workers):
                if result[1] is None:
                    missing.pop(result[0])
                yield result
            if not missing:
                return
        for source in missing:
            message = f"its worker died {ATTEMPTS} times"
            yield source, None, [LedgerRow(input=source, status="failed", message=message)]


def _round(sources: list[str], recipe: Any, prepare_one: Prepare, workers: int) -> Generator[Result]:
    """One pass of Ray Data over the sources; those whose actor dies are left out."""
    import ray.data

    data = ray.data.from_items([{"source": source} for source in sources], override_num_blocks=len(sources))
    data.context.execution_options.preserve_order = True  # the same sources give the same shards
    hush(data)
    data.context.max_errored_blocks = -1  # a block is a source; the caller knows which are missing
    with warnings.catch_warnings():
        # Ray 2.60 announces another name for the last argument, which it does not have yet.
        warnings.simplefilter("ignore")
        data = data.map_batches(
            _Actor,
            fn_constructor_args=(recipe, prepare_one),
            batch_size=1,
            # One source at a time: what waits in the queue of an actor dies with it.
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, max_tasks_in_flight_per_actor=1),
            num_cpus=1,
            ray_remote_args_fn=lambda: {"max_restarts": -1, "max_task_retries": 0},
        )
    for packed in data.iter_rows():
        yield pickle.loads(packed["result"])


class _Actor:
    """Prepares sources one after the other; hands on clip by clip, so that a long video needs no more memory."""

    def __init__(self, recipe: Any, prepare_one: Prepare) -> None:
        self._recipe, self._prepare_one = recipe, prepare_one

    def __call__(self, rows: dict[str, np.ndarray]) -> Iterator[dict[str, list[bytes]]]:
        for source in rows["source"]:
            for result in _results(str(source), self._recipe, self._prepare_one):
                yield {"result": [pickle.dumps(result)]}


@contextmanager
def _running_ray(workers: int) -> Iterator[None]:
    """A Ray, ended again if we started it."""
    import ray

    ours = ensure_ray(cpus=workers)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()
