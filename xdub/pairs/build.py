"""The pair factory: units over workers, committed in order by the driver (paper 3.1.2, B.3).

Exactly once: what is in the ledger is done; shards are written before the ledger, whole or not at all; a pair's id is
decided by its inputs, so a unit that was made but not committed is made again and equal. The driver may die at any
moment, workers and nodes too.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xdub.config import Recipe
from xdub.data.manifest import MANIFEST, file_sha256
from xdub.data.shards import Ledger, ShardWriter, read_manifest
from xdub.errors import UserError
from xdub.pairs.filter_plots import draw_filters
from xdub.pairs.generator import generator_file
from xdub.pairs.judges import Judges
from xdub.pairs.plan import Unit, plan_units, read_entries, what_decides
from xdub.pairs.worker import Outcome, PairWorker
from xdub.ray_session import ensure_ray

Report = Callable[..., None]
"""report(done, total, text="")"""
MAX_FAILED = 0.2
"""Share of inputs that may fail (damaged rows) before the run stops."""


@dataclass(frozen=True, kw_only=True)
class PairReport:
    """What a run made of its inputs, earlier attempts included."""

    inputs: int
    kept: int
    rejected: int
    failed: int
    seconds: float
    counts: dict[str, int]
    """Ledger rows by status, and by check for rejected ones."""
    steps: dict[str, float]
    """Worker seconds by step, this attempt."""


def build_pairs(
    recipe: Recipe,
    generator: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    workers: int = 1,
    seed: int | None = None,
    on_progress: Report | None = None,
    local: bool = False,
    judges: Judges | None = None,
) -> PairReport:
    """Make pairs of every clip of a data set; the same call again continues, and adds nothing when all is done.

    Args:
        generator: an export of the generator phase, its run, or a bundle.
        data: folder of clips; `xdub render` data holds twins, which give exact pairs too (`pairs.render_twins`).
        out: folder for pair shards, manifest.json and ledger.parquet.
        workers: Ray actors, each with a GPU if there are any, else with its share of the cores.
        seed: of noise, choice of speech and light; default: the recipe's.
        local: in this process, without Ray (tests, debugging).
        judges: networks of the filters; default: those of `recipe.perception`.

    Raises:
        UserError: data or generator are missing or do not fit the recipe, OUT was made otherwise, the disk is full, or
            more than a fifth of the inputs failed.
    """
    begin = time.monotonic()
    seed = recipe.seed if seed is None else seed
    if workers < 1:
        raise UserError(f"workers={workers}: at least one is needed")
    manifest = read_manifest(data)
    if manifest.kind != "clips":
        raise UserError(
            f"{data} holds {manifest.kind}; pairs are made of clips (`xdub prepare`, `xdub render`)"
        )
    if not manifest.ids:
        raise UserError(f"{data}: an empty data set; there is nothing to make pairs of")
    digest = file_sha256(generator_file(generator))  # part of every pair's id
    units = plan_units(read_entries(manifest), recipe, generator_digest=digest, seed=seed)
    total = sum(len(unit.jobs) for unit in units)
    arguments = dict(
        recipe=recipe.to_dict(), generator=str(generator), data=str(data), seed=seed, judges=judges
    )
    steps: dict[str, float] = {}
    made_of = {"generator": digest, "data": manifest.digest, "pair_seed": seed} | what_decides(recipe)
    _check_continues(Path(out), made_of)
    with ShardWriter(out, rows_per_shard=recipe.pairs.batch, kind="pairs", recipe=made_of) as writer:
        book = _Book(writer, Ledger(out))
        open_units = [unit for unit in units if not book.settled(unit)]
        done = total - sum(len(unit.jobs) for unit in open_units)
        book.tell(on_progress, done, total)
        make = _local if local else partial(_with_ray, workers=workers)
        for unit, outcome in zip(open_units, make(arguments, open_units), strict=True):
            book.commit(outcome)
            for name, seconds in outcome.seconds.items():
                steps[name] = steps.get(name, 0.0) + seconds
            done += len(unit.jobs)
            book.tell(on_progress, done, total)
            book.stop_if_hopeless(total)
        book.ledger.flush()
    draw_filters(out, recipe)
    counts = book.ledger.counts()
    return PairReport(
        inputs=total,
        kept=counts["kept"],
        rejected=counts["rejected"],
        failed=counts["failed"],
        seconds=time.monotonic() - begin,
        counts=counts,
        steps=steps,
    )


def _check_continues(out: Path, made_of: dict[str, Any]) -> None:
    """UserError if OUT was begun with other inputs: its ledger would be taken for ours."""
    if (out / MANIFEST).exists():
        begun = read_manifest(out)
        if begun.kind == "pairs" and begun.recipe != made_of:
            differ = [name for name in made_of if (begun.recipe or {}).get(name) != made_of[name]]
            raise UserError(
                f"{out}: begun with another {', '.join(differ)}; choose another folder, or remove it"
            )


class _Book:
    """Shards and ledger of a run, in this order: a ledger row that says "kept" always has its pair."""

    def __init__(self, writer: ShardWriter, ledger: Ledger) -> None:
        self.writer, self.ledger = writer, ledger
        rows = ledger.rows()
        self._settled = {row.input for row in rows if row.status != "failed"}
        self._counts = Counter(row.status for row in rows if row.status != "failed")
        self._flushed_at, self._flush_cost = 0.0, 0.0

    def settled(self, unit: Unit) -> bool:
        """Whether every input of the unit was kept or rejected."""
        return all(job.key in self._settled for job in unit.jobs)

    def commit(self, outcome: Outcome) -> None:
        """The unit's pairs as one shard, then its ledger rows. What is there already is not added again."""
        for row in outcome.rows:
            if row is not None:
                self.writer.add_row(row)
        self.writer.flush()
        for entry in outcome.ledger:
            if self.ledger.add(entry):
                self._counts[entry.status] += 1
        # The ledger is rewritten whole: spend at most a twentieth of the time on it. Rows that a crash then loses are
        # made again, and their pairs found to be there.
        begin = time.monotonic()
        if begin - self._flushed_at >= 20 * self._flush_cost:
            self.ledger.flush()
            self._flushed_at = time.monotonic()
            self._flush_cost = self._flushed_at - begin

    def tell(self, report: Report | None, done: int, total: int) -> None:
        if report is not None:
            report(done, total, ", ".join(f"{self._counts[s]} {s}" for s in ("kept", "rejected", "failed")))

    def stop_if_hopeless(self, total: int) -> None:
        if self._counts["failed"] > max(1, MAX_FAILED * total):
            last = [row for row in self.ledger.rows() if row.status == "failed"][-1]
            self.ledger.flush()
            raise UserError(
                f"{self._counts['failed']} of {total} inputs failed, last {last.input}: {last.message}"
            )


def _local(arguments: dict[str, Any], units: Sequence[Unit]) -> Iterator[Outcome]:
    if units:
        yield from map(PairWorker(**arguments).run, units)


def _with_ray(arguments: dict[str, Any], units: Sequence[Unit], workers: int) -> Iterator[Outcome]:
    """Outcomes in the order of the units, from actors that are restarted when they die."""
    if not units:
        return
    import ray

    ensure_ray(cpus=4)
    gpus = ray.cluster_resources().get("GPU", 0)
    resources = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_cpus": 0.5}
    # One thread each: the order of sums, hence every bit, is then the same on every worker.
    actor = ray.remote(PairWorker).options(max_restarts=3, max_task_retries=3, **resources)
    actors = [actor.remote(**arguments, threads=1) for _ in range(min(workers, len(units)))]
    try:
        yield from _ordered(actors, units)
    finally:
        for one in actors:
            ray.kill(one)


def _ordered(actors: Sequence[Any], units: Sequence[Unit]) -> Iterator[Outcome]:
    """Each actor works on one unit and has one waiting; results come in order, at most a few ahead."""
    import ray

    waiting = deque(units)
    load = {n: 0 for n in range(len(actors))}
    running: dict[Any, tuple[int, int]] = {}  # result -> (actor, unit)
    ready: dict[int, Outcome] = {}
    order = deque(unit.number for unit in units)
    ahead = 4 * len(actors)
    while order:
        while waiting and len(running) + len(ready) < ahead and min(load.values()) < 2:
            number = min(load, key=load.get)
            unit = waiting.popleft()
            running[actors[number].run.remote(unit)] = (number, unit.number)
            load[number] += 1
        finished, _ = ray.wait(list(running), num_returns=1)
        number, unit_number = running.pop(finished[0])
        load[number] -= 1
        ready[unit_number] = _get(finished[0])
        while order and order[0] in ready:
            yield ready.pop(order.popleft())


def _get(result: Any) -> Outcome:
    """The outcome; what a worker raised is raised here as itself."""
    import ray

    try:
        return ray.get(result)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, UserError) else error) from None
    except ray.exceptions.RayActorError as error:
        raise RuntimeError(f"a pair worker died more often than it is restarted: {error}") from error
