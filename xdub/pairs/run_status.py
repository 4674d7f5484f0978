"""The status of a pair run: a line for the terminal and metrics for the tracker."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xdub.config import Recipe
from xdub.data.ledger import STATUSES, Counts
from xdub.data.run_line import RunLine
from xdub.files.run_folder import RunFolder, StageFolder
from xdub.files.storage import Location
from xdub.tracking.journal import Journal
from xdub.tracking.stage_tracker import StageTracker


@dataclass(kw_only=True)
class RunStatus(RunLine):
    """The progress line of a pair run, with metrics for the tracker."""

    journal: Journal | None = None

    def add(self, inputs: int, counts: Counts, seconds: float) -> None:
        """Record that ``inputs`` more are complete; ``counts`` and ``seconds`` are the new totals."""
        super().add(inputs, counts, seconds)
        if self.journal is not None:
            self.journal.metrics(self.done, self.metrics())

    @property
    def accept_rate(self) -> float | None:
        """Share of kept pairs among the judged pairs; None before a pair is judged."""
        judged = self.counts["kept"] + self.counts["rejected"]
        return self.counts["kept"] / judged if judged else None

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
        if self.per_second is not None:
            values["pairs/inputs_per_second"] = self.per_second
        if self.accept_rate is not None:
            values["pairs/accept_rate"] = self.accept_rate
        if kept:
            values["pairs/worker_seconds_per_kept"] = self.seconds / kept
        if self.dollars_per_kept is not None:
            values["pairs/dollars_per_kept"] = self.dollars_per_kept
        return values


@contextmanager
def tracked(
    parent: str | Path | None,
    out: Location,
    recipe: Recipe,
    data: Location,
    facts: dict[str, Any],
) -> Generator[Journal | None]:
    """Yield the journal of a run below the run of the folder ``parent``, or None (no tracking) without a parent.

    The journal is in OUT. An object store cannot hold it, because it grows line by line, so such a run has none.
    """
    if parent is None or out.local is None:
        yield None
        return
    folder = StageFolder(out.local)
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
