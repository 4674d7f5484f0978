"""What a pair run is doing: a line for the terminal, numbers for the tracker."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from xdub.config import Recipe
from xdub.data.ledger import STATUSES, Counts
from xdub.pairs.pool import PoolState
from xdub.progress import Report
from xdub.tracking.journal import Journal
from xdub.tracking.tracked_run import JOURNAL, TrackedRun

WINDOW_SECONDS = 120.0
"""Speed is that of the last minutes, so that it tells of the workers there are now."""


@dataclass(kw_only=True)
class Live:
    """Counts of the ledger and the state of the pool, put together."""

    total: int
    """Inputs."""
    price: float | None = None
    """Of a worker's hour, dollars."""
    report: Report | None = None
    journal: Journal | None = None
    pool: PoolState = field(default_factory=PoolState)
    done: int = 0
    counts: Counts = field(default_factory=Counts)
    """Of this run's inputs."""
    seconds: float = 0.0
    """Of work that the inputs took, earlier attempts included."""
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def begin(self, done: int, counts: Counts, seconds: float) -> None:
        """What an earlier attempt left done."""
        self.done, self.counts, self.seconds = done, counts, seconds
        self._recent.append((time.monotonic(), done))
        self._tell()

    def committed(self, inputs: int, counts: Counts, seconds: float) -> None:
        """So many inputs more have ended."""
        self.done, self.counts, self.seconds = self.done + inputs, counts, seconds
        now = time.monotonic()
        self._recent.append((now, self.done))
        while len(self._recent) > 2 and now - self._recent[0][0] > WINDOW_SECONDS:
            self._recent.popleft()
        if self.journal is not None:
            self.journal.metrics(self.done, self.metrics())
        self._tell()

    def pool_is(self, state: PoolState) -> None:
        """Workers came, went, or took a unit."""
        if state != self.pool:
            self.pool = state
            self._tell()

    def _tell(self) -> None:
        if self.report is not None:
            self.report(self.done, self.total, self.line())

    @property
    def per_second(self) -> float | None:
        """Inputs a second."""
        if len(self._recent) < 2:
            return None
        (then, before), (now, done) = self._recent[0], self._recent[-1]
        return (done - before) / (now - then) if now > then and done > before else None

    @property
    def accept_rate(self) -> float | None:
        """Kept of those that were judged."""
        judged = self.counts["kept"] + self.counts["rejected"]
        return self.counts["kept"] / judged if judged else None

    def line(self) -> str:
        """``12 kept, 3 rejected, 0 failed; 3 workers, 2 busy, 1 starting, 20 units wait; 0.8/s``"""
        parts = [str(self.counts)]
        pool = self.pool
        if pool.ready or pool.starting:
            workers = f"{pool.ready} workers, {pool.busy} busy"
            workers += f", {pool.starting} starting" if pool.starting else ""
            workers += f", {pool.lost} lost" if pool.lost else ""
            parts.append(f"{workers}, {pool.queue} units wait")
        if self.per_second:
            parts.append(f"{self.per_second:.2f}/s")
        return "; ".join(parts)

    def metrics(self) -> dict[str, float]:
        """As they are journalled at every commit."""
        kept = self.counts["kept"]
        values = {f"pairs/{status}": float(self.counts[status]) for status in STATUSES}
        values |= {
            "pairs/queue": float(self.pool.queue),
            "pairs/workers": float(self.pool.ready),
            "pairs/workers_busy": float(self.pool.busy),
            "pairs/workers_starting": float(self.pool.starting),
            "pairs/workers_lost": float(self.pool.lost),
        }
        if self.per_second is not None:
            values["pairs/inputs_per_second"] = self.per_second
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
    """The journal of a run below that of the folder ``parent``; None, and nothing is tracked, without one."""
    if parent is None:
        yield None
        return
    run = TrackedRun(Path(parent), "pairs", out)
    run.begin(recipe.to_dict(), recipe.to_yaml(), [data], facts)
    journal = Journal(out / JOURNAL)
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
    try:
        yield journal
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        journal.close()
        run.end(status)
