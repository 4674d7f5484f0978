"""The units of a pool and their outcomes, in the order of the units whatever dies. This file knows nothing of Ray."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Generic, TypeVar

MAX_DEATHS = 3
"""Number of workers that may die while they process a unit, before it fails; lost machines do not count."""

Unit = TypeVar("Unit")
Outcome = TypeVar("Outcome")
Key = tuple[int, int]
"""(number of the unit, number of its part); an undivided unit is part 0."""


class UnitQueue(Generic[Unit, Outcome]):
    """Queue of the units that wait, run or have finished before an earlier one.

    A unit whose workers die is repeated. Before its last attempt a unit of several inputs is split, so that an input
    that kills workers costs only itself. The parts follow one another in the place of their unit.
    """

    def __init__(
        self,
        units: Iterable[Unit],
        *,
        ahead: int,
        failed: Callable[[Unit, str], Outcome],
        split: Callable[[Unit], Sequence[Unit]] | None = None,
    ) -> None:
        """Keep the settings and pull the first units.

        Args:
            units: an iterator is pulled only as far as ``ahead`` allows, so memory does not grow with its length.
            ahead: number of units, from the earliest without an outcome on, that may be pulled at a time.
            failed: returns the outcome of a unit whose workers died, with the reason.
            split: returns the parts of a unit; None keeps units whole.
        """
        self._units, self._failed, self._split = iter(units), failed, split
        self._total = len(units) if isinstance(units, Sized) else None
        self._ahead = ahead
        self._number = self._part = 0
        self._pulled = self._running = 0
        self._exhausted = False
        self._waiting: list[tuple[Key, Unit]] = []
        self._done: dict[Key, Outcome] = {}
        self._parts: dict[int, int] = {}
        self._deaths: Counter[Key] = Counter()
        self._pull()

    @property
    def finished(self) -> bool:
        """True if every outcome was returned."""
        return self._exhausted and self._number == self._pulled

    @property
    def waiting(self) -> int:
        """Number of units without a worker; ``ahead`` stands for the rest of an iterator of unknown length."""
        if self._exhausted:
            return len(self._waiting)
        rest = self._ahead if self._total is None else self._total - self._pulled
        return len(self._waiting) + rest

    @property
    def open(self) -> int:
        """Number of units that wait or run."""
        return self.waiting + self._running

    @property
    def ready(self) -> bool:
        """True if the next outcome in order has arrived."""
        return (self._number, self._part) in self._done

    def next_outcome(self) -> Outcome:
        """Return the next outcome in order, and pull further units."""
        outcome = self._done.pop((self._number, self._part))
        self._part += 1
        if self._part >= self._parts.get(self._number, 1):
            self._parts.pop(self._number, None)
            self._number, self._part = self._number + 1, 0
            self._pull()
        return outcome

    def take(self) -> tuple[Key, Unit] | None:
        """Return the earliest unit without a worker, so that no unit waits for ever; None if there is none."""
        if not self._waiting:
            return None
        self._running += 1
        return heapq.heappop(self._waiting)

    def finish(self, key: Key, outcome: Outcome) -> None:
        """Store the outcome of a unit that was taken."""
        self._running -= 1
        self._deaths.pop(key, None)
        self._done[key] = outcome

    def died(self, key: Key, unit: Unit, reason: str, *, guilty: bool) -> None:
        """Put the unit of a dead worker back, split it before its last attempt, or fail it after the last.

        A unit is not ``guilty`` if its machine was lost or reclaimed.
        """
        self._deaths[key] += guilty
        deaths = self._deaths[key]
        if deaths >= MAX_DEATHS:
            self.finish(key, self._failed(unit, f"its worker died {MAX_DEATHS} times: {reason}"))
            return
        self._running -= 1
        parts = [unit] if self._split is None or deaths < MAX_DEATHS - 1 else self._split(unit)
        if len(parts) < 2:
            heapq.heappush(self._waiting, (key, unit))
            return
        number = key[0]
        self._parts[number] = len(parts)
        for part, divided in enumerate(parts):
            self._deaths[number, part] = deaths
            heapq.heappush(self._waiting, ((number, part), divided))

    def _pull(self) -> None:
        while not self._exhausted and self._pulled < self._number + self._ahead:
            try:
                unit = next(self._units)
            except StopIteration:
                self._exhausted = True
            else:
                heapq.heappush(self._waiting, ((self._pulled, 0), unit))
                self._pulled += 1
