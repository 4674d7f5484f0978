"""The progress of a run on the pool: counts of the ledger, state of the workers, speed and cost, in one line."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdub.data.ledger import Counts
from xdub.pool import PoolState
from xdub.progress import Rate, Report


@dataclass(kw_only=True)
class RunLine:
    """Counts of a run's inputs and state of its pool; every change is reported. The display adds the time left."""

    total: int
    """Number of inputs of the run."""
    report: Report | None = None
    done: int = 0
    """Number of inputs that were kept, rejected or failed."""
    counts: Counts = field(default_factory=Counts)
    """Ledger rows of this run's inputs by status."""
    seconds: float = 0.0
    """Worker seconds of the rows in `counts`."""
    price: float | None = None
    """Dollars an hour of a worker."""
    pool: PoolState = field(default_factory=PoolState)
    _rate: Rate = field(default_factory=Rate)

    def begin(self, done: int, counts: Counts, seconds: float) -> None:
        """Start from the inputs that an earlier attempt completed."""
        self.done, self.counts, self.seconds = done, counts, seconds
        self._rate.add(done)
        self._show()

    def add(self, inputs: int, counts: Counts, seconds: float) -> None:
        """Record that ``inputs`` more are complete; ``counts`` and ``seconds`` are the new totals."""
        self.done, self.counts, self.seconds = self.done + inputs, counts, seconds
        self._rate.add(self.done)
        self._show()

    def set_pool(self, state: PoolState) -> None:
        """Record the state of the pool, and report it if it changed."""
        if state != self.pool:
            self.pool = state
            self._show()

    @property
    def per_second(self) -> float | None:
        """Inputs a second over the last minute; None before the second change."""
        return self._rate.per_second

    @property
    def dollars_per_kept(self) -> float | None:
        """Cost of a kept result; None without a price or a kept result."""
        kept = self.counts["kept"]
        return None if self.price is None or not kept else self.seconds / kept / 3600 * self.price

    def line(self) -> str:
        """Format as ``12 kept, 3 rejected, 0 failed; 3 workers, 2 busy, 20 units wait; 0.80/s; 4.1 worker s each``."""
        parts = [str(self.counts), str(self.pool)]
        if self.per_second:
            parts.append(f"{self.per_second:.2f}/s")
        if self.counts["kept"] and self.seconds:
            cost = f"{self.seconds / self.counts['kept']:.1f} worker s each"
            if self.dollars_per_kept is not None:
                cost += f", ${self.dollars_per_kept:.4f}"
            parts.append(cost)
        return "; ".join(part for part in parts if part)

    def _show(self) -> None:
        if self.report is not None:
            self.report(self.done, self.total, self.line())
