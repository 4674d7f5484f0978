"""Build of synthetic pairs: workers process units, the driver commits them in order (paper 3.1.2, B.3).

Every input is committed exactly once. An input in the ledger is done. Shards are written atomically before the ledger.
A pair's id depends on its inputs only, so a unit that was built but not committed is built again with equal content.
The driver, workers and nodes may die at any moment.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdub.config import SHIPPED_MODEL, Recipe, located
from xdub.data.dataset import DataSet
from xdub.data.decisions import REVIEW
from xdub.data.ledger import Counts, LedgerRow
from xdub.data.manifest import MANIFEST, read_manifest
from xdub.data.outcome import Outcome
from xdub.errors import UserError
from xdub.files.storage import Location, locate
from xdub.headers import check_networks
from xdub.model.licences import require_base_licence, require_licence
from xdub.model.published import published_folder
from xdub.pairs.filter_plots import PICTURE, update_filter_plots
from xdub.pairs.judges import Judges
from xdub.pairs.maker import maker_digest, recipe_with_editor
from xdub.pairs.run_status import RunStatus, tracked
from xdub.pairs.units import (
    COPY,
    LONE,
    Unit,
    deciding_sections,
    excluded_rows,
    located_sections,
    plan_units,
    read_entries,
)
from xdub.pairs.worker import PairWorker, failed_unit
from xdub.pool import WorkerPool, Workers
from xdub.progress import Report

MAX_FAILED = 0.2
"""Share of inputs that may fail, e.g. for damaged rows, before the run stops."""


@dataclass(frozen=True, kw_only=True)
class PairReport:
    """Result of a run for its own inputs, earlier attempts included; other pairs in OUT do not count."""

    inputs: int
    """Number of inputs."""
    counts: Counts
    """Ledger rows of the inputs by status."""
    seconds: float
    """Wall time of this attempt."""
    steps: dict[str, float]
    """Worker seconds of this attempt by step."""

    def require_pairs(self, out: str | Path | Location) -> None:
        """Raise UserError with the reasons if the inputs yielded no pair in OUT."""
        if not self.counts["kept"]:
            raise UserError(
                f"{out}: none of {self.inputs} pairs was kept ({self.counts.reasons()}); see its {PICTURE}, and "
                "lower a threshold of the section pairs or prepare other clips"
            )


def build_pairs(
    recipe: Recipe,
    generator: str | Path,
    data: str | Path | Location,
    out: str | Path | Location,
    *,
    workers: int | Workers = 1,
    seed: int | None = None,
    on_progress: Report | None = None,
    local: bool = False,
    judges: Judges | None = None,
    tracked_in: str | Path | None = None,
    price: float | None = None,
) -> PairReport:
    """Build pairs from every clip of a data set. A repeated call continues, and adds nothing when all is done.

    Args:
        generator: an export of the generator phase, its run, or a bundle; `tiny` is the shipped bundle. A published
            editor NAME:DIR makes V' without a mask.
        data: folder of clips, or a URI such as ``s3://bucket/folder``; data of `xdub render` holds twins, which yield
            exact pairs too (`pairs.render_twins`).
        out: folder or URI of the pairs' shards, manifest and ledger.
        workers: number of Ray actors, each with a GPU if the cluster has any, else with its share of the cores;
            `Workers` describes a pool that grows and shrinks.
        seed: seed of noise, choice of speech and light; default: the recipe's.
        local: run in this process, without Ray (tests, debugging).
        judges: networks of the filters; default: those of `recipe.perception`.
        tracked_in: folder of the MLflow parent run; default: no tracking.
        price: dollars an hour of a worker, for the cost of a kept pair.

    Raises:
        UserError: data or generator are missing or do not fit the recipe, OUT was built from other inputs, the disk is
            full, or more than a fifth of the inputs failed.
    """
    begin = time.monotonic()
    data, out, seed = locate(data), locate(out), recipe.seed if seed is None else seed
    pool_size = workers if isinstance(workers, Workers) else Workers(least=workers, most=workers)
    if (published := published_folder(generator)) is not None:
        require_licence(published.editor.name)
        recipe = recipe_with_editor(recipe, published)
    else:
        require_base_licence(recipe)
    manifest = read_manifest(data)
    if manifest.kind != "clips":
        raise UserError(
            f"{data} holds {manifest.kind}; pairs are built from clips (`xdub prepare`, `xdub render`)"
        )
    if judges is None:
        check_networks(recipe, ("pairs",))
    if not manifest.ids:
        raise UserError(f"{data}: an empty data set; pairs need at least one clip")
    # The digest is part of every pair's id.
    location, digest = maker_digest(recipe, generator)
    entries = read_entries(manifest)
    excluded = excluded_rows(entries, recipe)
    units = plan_units(entries, recipe, generator_digest=digest, seed=seed)
    arguments = dict(
        recipe=located(recipe).to_dict(),
        # Each machine has its own copy of the shipped generator, at a path of its own.
        generator=SHIPPED_MODEL if str(generator) == SHIPPED_MODEL else location,
        data=data,
        out=out,
        seed=seed,
        judges=judges,
    )
    inputs = {"generator": digest, "data": manifest.digest, "pair_seed": seed}
    origin = recorded_origin(out, inputs | deciding_sections(recipe), inputs | located_sections(recipe))
    steps: Counter[str] = Counter()
    with DataSet(out, kind="pairs", recipe=origin) as pairs:
        commits = _Commits(pairs, units, excluded)
        facts = {"generator": digest, "pair_seed": seed, "workers": f"{pool_size.least}:{pool_size.most}"}
        with tracked(tracked_in, out, recipe, data, facts) as journal:
            status = RunStatus(
                total=len(excluded) + sum(len(unit.jobs) for unit in units),
                price=price,
                report=on_progress,
                journal=journal,
            )
            open_units = [unit for unit in units if not commits.settled(unit)]
            status.begin(
                status.total - sum(len(unit.jobs) for unit in open_units), commits.counts, commits.seconds
            )
            pool = WorkerPool(
                PairWorker,
                # In an actor sums run in one thread, so that they have the same order and bits on every machine.
                arguments if local else arguments | {"threads": 1},
                pool_size,
                name="pairs",
                failed=failed_unit,
                local=local,
                on_state=status.set_pool,
            )
            for unit, outcome in zip(open_units, pool.outcomes(open_units), strict=True):
                commits.commit(outcome)
                steps.update(outcome.seconds)
                status.add(len(unit.jobs), commits.counts, commits.seconds)
                commits.check_failures(status.total)
            picture = update_filter_plots(out, recipe)
            if picture is not None and picture.local is not None and journal is not None:
                journal.artifact(picture.local, "results")
    return PairReport(
        inputs=status.total, counts=commits.counts, seconds=time.monotonic() - begin, steps=dict(steps)
    )


def recorded_origin(out: Location, origin: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs that OUT records: ``origin``, or ``earlier`` in a set that an earlier version began.

    Raise UserError if OUT was built from other inputs, because their ledger rows would count for this run.
    """
    if not (out / MANIFEST).is_file():
        return origin
    manifest = read_manifest(out)
    if manifest.kind != "pairs" or manifest.recipe == origin:
        return origin
    if manifest.recipe == earlier:
        return earlier
    recorded = manifest.recipe or {}
    differ = [name for name in dict.fromkeys((*origin, *recorded)) if recorded.get(name) != origin.get(name)]
    raise UserError(f"{out}: was built with another {', '.join(differ)}; choose another folder, or remove it")


class _Commits:
    """Commits of a run's units: first the shards, then the ledger, so that every ledger row "kept" has its pair."""

    def __init__(self, pairs: DataSet, units: Sequence[Unit], excluded: Sequence[LedgerRow]) -> None:
        """Read the earlier results, and record the clips of which no pair is built."""
        self.pairs = pairs
        # OUT may hold imported pairs, too.
        jobs = {job.key for unit in units for job in unit.jobs}
        inputs = jobs | {row.input for row in excluded}
        self.counts = Counts()
        """Rows of this run's inputs by status; an earlier failure is tried again and counts once it has a result."""
        self.seconds = 0.0
        """Worker seconds of the rows in `counts`."""
        self._failed: LedgerRow | None = None
        # Speakers may have been grouped since an earlier call, and masks accepted.
        stale: set[str] = set()
        for row in pairs.ledger.rows():
            if row.input in jobs and row.check in (COPY, LONE, REVIEW):
                stale.add(row.input)
            elif row.input in inputs and row.status != "failed":
                self._count(row)
        for name in stale:
            pairs.ledger.reopen(name)
        for row in excluded:
            if pairs.ledger.add(row):
                self._count(row)
        pairs.ledger.flush()

    def settled(self, unit: Unit) -> bool:
        """Return True if every input of the unit was kept or rejected."""
        return all(self.pairs.ledger.settled(job.key) for job in unit.jobs)

    def commit(self, outcome: Outcome) -> None:
        """Commit the unit's shard and its ledger rows; pairs and rows that exist are skipped."""
        rows = [row for row in outcome.ledger if not self.pairs.ledger.settled(row.input)]
        self.pairs.commit(outcome.shards, rows)
        for row in rows:
            self._count(row)
            self._failed = row if row.status == "failed" else self._failed

    def check_failures(self, total: int) -> None:
        """Raise UserError if more than `MAX_FAILED` of the inputs failed."""
        if self._failed is not None and self.counts["failed"] > max(1, MAX_FAILED * total):
            last = f"{self._failed.input}: {self._failed.message}"
            raise UserError(f"{self.counts['failed']} of {total} inputs failed, last {last}")

    def _count(self, row: LedgerRow) -> None:
        self.counts.add(row)
        self.seconds += row.seconds
