"""The status of a pair run: a line for the terminal and metrics for the tracker."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from xdub.config import Recipe
from xdub.data.ledger import STATUSES, Counts
from xdub.files.run_folder import RunFolder, StageFolder
from xdub.pool import PoolState
from xdub.progress import Rate, Report
from xdub.tracking.journal import Journal
from xdub.tracking.stage_tracker import StageTracker


@dataclass(kw_only=True)
class RunStatus:
    """Counts of the ledger and state of the pool; every change is reported."""

    total: int
    """Number of inputs of the run."""
    price: float | None = None
    """Dollars an hour of a worker."""
    report: Report | None = None
    journal: Journal | None = None
    pool: PoolState = field(default_factory=PoolState)
    done: int = 0
    """Number of inputs that were kept, rejected or failed."""
    counts: Counts = field(default_factory=Counts)
    """Ledger rows of this run's inputs by status."""
    seconds: float = 0.0
    """Worker seconds of the inputs, earlier attempts included."""
    _rate: Rate = field(default_factory=Rate)

    def begin(self, done: int, counts: Counts, seconds: float) -> None:
        """Start from the inputs that an earlier attempt completed."""
        self.done, self.counts, self.seconds = done, counts, seconds
        self._rate.add(done)
        self._report()

    def add(self, inputs: int, counts: Counts, seconds: float) -> None:
        """Record that ``inputs`` more are complete; ``counts`` and ``seconds`` are the new totals."""
        self.done, self.counts, self.seconds = self.done + inputs, counts, seconds
        self._rate.add(self.done)
        if self.journal is not None:
            self.journal.metrics(self.done, self.metrics())
        self._report()

    def set_pool(self, state: PoolState) -> None:
        """Record the state of the pool, and report it if it changed."""
        if state != self.pool:
            self.pool = state
            self._report()

    def _report(self) -> None:
        if self.report is not None:
            self.report(self.done, self.total, self.line())

    @property
    def accept_rate(self) -> float | None:
        """Share of kept pairs among the judged pairs; None before a pair is judged."""
        judged = self.counts["kept"] + self.counts["rejected"]
        return self.counts["kept"] / judged if judged else None

    def line(self) -> str:
        """Format as ``12 kept, 3 rejected, 0 failed; 3 workers, 2 busy, 1 starting, 20 units wait; 0.80/s``."""
        parts = [str(self.counts)]
        parts += [str(self.pool)] if str(self.pool) else []
        if self._rate.per_second:
            parts.append(f"{self._rate.per_second:.2f}/s")
        return "; ".join(parts)

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the tracker by name; every commit adds them to the journal."""
        kept = self.counts["kept"]
        values = {f"pairs/{status}": float(self.counts[status]) for status in STATUSES}
        values |= {
            "pairs/queue": float(self.pool.queue),
            "pairs/workers": float(self.pool.ready),
            "pairs/workers_busy": float(self.pool.busy),
            "pairs/workers_starting": float(self.pool.starting),
            "pairs/workers_lost": float(self.pool.lost),
        }
        if self._rate.per_second is not None:
            values["pairs/inputs_per_second"] = self._rate.per_second
        if self.accept_rate is not None:
            values["pairs/accept_rate"] = self.accept_rate
        if kept:
            values["pairs/worker_seconds_per_kept"] = self.seconds / kept
            if self.price is not None:
                values["pairs/dollars_per_kept"] = self.seconds / kept / 3600 * self.price
        return values


@contextmanager
def tracked(
    parent: str | Path | None, out: Path, recipe: Recipe, data: Path, facts: dict[str, Any]
) -> Generator[Journal | None]:
    """Yield the journal of a run below the run of the folder ``parent``, or None (no tracking) without a parent."""
    if parent is None:
        yield None
        return
    folder = StageFolder(out)
    run = StageTracker(RunFolder(parent), "pairs", folder)
    run.begin(recipe.to_dict(), recipe.to_yaml(), [data], facts)
    journal = Journal(folder)
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
    try:
        yield journal
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        journal.close()
        run.end(status)
