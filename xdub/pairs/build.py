"""The pair factory: units over workers, committed in order by the driver (paper 3.1.2, B.3).

Exactly once: what is in the ledger is done; shards are written before the ledger, whole or not at all; a pair's id is
decided by its inputs, so a unit that was made but not committed is made again and equal. The driver may die at any
moment, workers and nodes too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdub.config import SHIPPED_MODEL, Recipe, check_weights
from xdub.data.ledger import Counts, Ledger, LedgerRow
from xdub.data.manifest import MANIFEST, file_sha256
from xdub.data.shards import ShardWriter, read_manifest
from xdub.errors import UserError
from xdub.pairs.filter_plots import draw_what_is_new
from xdub.pairs.generator import generator_file
from xdub.pairs.judges import Judges
from xdub.pairs.live import Live, tracked
from xdub.pairs.pool import WorkerPool, Workers
from xdub.pairs.units import Unit, plan_units, read_entries, what_decides
from xdub.pairs.worker import Outcome, PairWorker
from xdub.progress import Report

MAX_FAILED = 0.2
"""Share of inputs that may fail (damaged rows) before the run stops."""


@dataclass(frozen=True, kw_only=True)
class PairReport:
    """What a run made of its inputs, earlier attempts included; what else OUT holds is not in it."""

    inputs: int
    counts: Counts
    """Of the inputs' ledger rows."""
    seconds: float
    steps: dict[str, float]
    """Worker seconds by step, this attempt."""


def build_pairs(
    recipe: Recipe,
    generator: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    workers: int | Workers = 1,
    seed: int | None = None,
    on_progress: Report | None = None,
    local: bool = False,
    judges: Judges | None = None,
    tracked_in: str | Path | None = None,
    price: float | None = None,
) -> PairReport:
    """Make pairs of every clip of a data set; the same call again continues, and adds nothing when all is done.

    Args:
        generator: an export of the generator phase, its run, or a bundle; `tiny` is the shipped one.
        data: folder of clips; `xdub render` data holds twins, which give exact pairs too (`pairs.render_twins`).
        out: folder for pair shards, manifest.json and ledger.parquet.
        workers: Ray actors, each with a GPU if there are any, else with its share of the cores; `Workers` for a pool
            that grows and shrinks.
        seed: of noise, choice of speech and light; default: the recipe's.
        local: in this process, without Ray (tests, debugging).
        judges: networks of the filters; default: those of `recipe.perception`.
        tracked_in: folder of the MLflow parent run; none = not tracked.
        price: dollars an hour of a worker, for the cost of a kept pair.

    Raises:
        UserError: data or generator are missing or do not fit the recipe, OUT was made otherwise, the disk is full, or
            more than a fifth of the inputs failed.
    """
    begin = time.monotonic()
    out, seed = Path(out), recipe.seed if seed is None else seed
    staff = workers if isinstance(workers, Workers) else Workers(least=workers, most=workers)
    manifest = read_manifest(data)
    if manifest.kind != "clips":
        raise UserError(
            f"{data} holds {manifest.kind}; pairs are made of clips (`xdub prepare`, `xdub render`)"
        )
    if judges is None:
        check_weights(recipe, ("pairs",))
    if not manifest.ids:
        raise UserError(f"{data}: an empty data set; there is nothing to make pairs of")
    weights = generator_file(generator)
    digest = file_sha256(weights)  # part of every pair's id
    units = plan_units(read_entries(manifest), recipe, generator_digest=digest, seed=seed)
    arguments = dict(
        recipe=recipe.to_dict(),
        # The shipped one is on each machine, wherever it was installed there.
        generator=SHIPPED_MODEL if str(generator) == SHIPPED_MODEL else str(weights.resolve()),
        data=str(Path(data).resolve()),
        seed=seed,
        judges=judges,
    )
    made_of = {"generator": digest, "data": manifest.digest, "pair_seed": seed} | what_decides(recipe)
    _check_continues(out, made_of)
    steps: Counter[str] = Counter()
    with ShardWriter(out, rows_per_shard=recipe.pairs.batch, kind="pairs", recipe=made_of) as writer:
        book = _Book(writer, Ledger(out), units)
        facts = {"generator": digest, "pair_seed": seed, "workers": f"{staff.least}:{staff.most}"}
        with tracked(tracked_in, out, recipe, Path(data), facts) as journal:
            live = Live(
                total=sum(len(unit.jobs) for unit in units), price=price, report=on_progress, journal=journal
            )
            open_units = [unit for unit in units if not book.settled(unit)]
            live.begin(live.total - sum(len(unit.jobs) for unit in open_units), book.counts, book.seconds)
            pool = WorkerPool(arguments, staff, on_state=live.pool_is)
            outcomes = _local(arguments, open_units) if local else pool.outcomes(open_units)
            for unit, outcome in zip(open_units, outcomes, strict=True):
                book.commit(outcome)
                steps.update(outcome.seconds)
                live.committed(len(unit.jobs), book.counts, book.seconds)
                book.stop_if_hopeless(live.total)
            book.ledger.flush()
            picture = draw_what_is_new(out, recipe)
            if picture is not None and journal is not None:
                journal.artifact(picture, "results")
    return PairReport(
        inputs=live.total, counts=book.counts, seconds=time.monotonic() - begin, steps=dict(steps)
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

    def __init__(self, writer: ShardWriter, ledger: Ledger, units: Sequence[Unit]) -> None:
        self.writer, self.ledger = writer, ledger
        ours = {job.key for unit in units for job in unit.jobs}  # OUT may hold imported pairs, too
        rows = [row for row in ledger.rows() if row.input in ours and row.status != "failed"]
        self._settled = {row.input for row in rows}
        self.counts = Counts.of(rows)
        """Of our inputs; what has failed before is tried again, and counts when it has ended."""
        self.seconds = sum(row.seconds for row in rows)
        """Of work, as the ledger has it."""
        self._failed: LedgerRow | None = None
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
                self.counts.add(entry)
                self.seconds += entry.seconds
                self._failed = entry if entry.status == "failed" else self._failed
        # The ledger is rewritten whole: spend at most a twentieth of the time on it. Rows that a crash then loses are
        # made again, and their pairs found to be there.
        begin = time.monotonic()
        if begin - self._flushed_at >= 20 * self._flush_cost:
            self.ledger.flush()
            self._flushed_at = time.monotonic()
            self._flush_cost = self._flushed_at - begin

    def stop_if_hopeless(self, total: int) -> None:
        if self._failed is not None and self.counts["failed"] > max(1, MAX_FAILED * total):
            self.ledger.flush()
            what = f"{self._failed.input}: {self._failed.message}"
            raise UserError(f"{self.counts['failed']} of {total} inputs failed, last {what}")


def _local(arguments: dict[str, Any], units: Sequence[Unit]) -> Iterator[Outcome]:
    if units:
        yield from map(PairWorker(**arguments).run, units)
