"""Pair workers on Ray that come and go: as many as the queue needs, on whatever machines there are.

A worker is an actor with one unit at a time. What waits decides how many are asked for, and a cluster with an
autoscaler adds machines for those that find no place. Who has nothing to do is let go at once, so that its machine can
go too. A worker that dies, or whose machine is taken away, costs the unit it had in hand: another makes it again.
"""

from __future__ import annotations

import heapq
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from xdub.data.shards import LedgerRow
from xdub.errors import UserError
from xdub.pairs.units import Unit
from xdub.pairs.worker import Outcome, PairWorker
from xdub.ray_session import draining_nodes, ensure_ray

MAX_DEATHS = 3
"""Workers that one unit may cost, lost machines not counted; then its inputs have failed."""
MAX_FAILED_STARTS = 5
"""Workers in a row that die before they are ready, after which a person must look."""
AHEAD = 4
"""Units a worker that may be done before an earlier one is: their pairs wait in the driver's memory."""
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
"""How long nobody may work before we say what is waited for."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many workers, and what each of them takes."""

    least: int = 1
    """Kept even when there is nothing for them to do (until the end)."""
    most: int = 1
    cpus: float = 0.5
    gpus: float | None = None
    """None: one each if the cluster has any."""
    resources: dict[str, float] = field(default_factory=dict)
    """Ray's custom resources, e.g. {"pairgen": 1}, which keep them off the machines that train."""

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or self.most < 1:
            raise UserError(f"workers={self.least}:{self.most}: at least one is needed, MIN no more than MAX")

    @classmethod
    def parse(cls, text: str, **others: Any) -> Workers:
        """``4`` or ``0:8``."""
        try:
            numbers = [int(part) for part in text.split(":")]
            least, most = numbers if len(numbers) == 2 else (numbers[0], *numbers)
        except (ValueError, IndexError):
            raise UserError(f"workers={text}: give a number, or MIN:MAX such as 0:8") from None
        return cls(least=least, most=most, **others)


@dataclass(frozen=True, kw_only=True)
class PoolState:
    """What a person wants to see of a pool."""

    ready: int = 0
    """Workers with everything loaded."""
    busy: int = 0
    starting: int = 0
    """Workers that load, or wait for a machine."""
    queue: int = 0
    """Units nobody has begun."""
    lost: int = 0
    """Workers that died so far."""


class _Actor:
    """A pair worker that is loaded by a call, so that what fails there has a name."""

    def load(self, arguments: dict[str, Any]) -> str:
        """Everything into memory. Returns the id of the machine."""
        import ray

        self._worker = PairWorker(**arguments, threads=1)  # one thread: the same sums, hence bits, everywhere
        node = ray.get_runtime_context().get_node_id()
        self._worker.name = f"{self._worker.name}/{node[:8]}"
        return node

    def run(self, unit: Unit) -> Outcome:
        return self._worker.run(unit)


@dataclass
class _Worker:
    actor: Any
    loading: Any = None
    """The answer to `load`, until it is there."""
    node: str = ""
    unit: Unit | None = None
    place: int = -1
    """Of the unit, in the order of outcomes."""
    result: Any = None
    leaving: bool = False

    @property
    def ready(self) -> bool:
        return self.loading is None

    @property
    def pending(self) -> Any:
        """What we wait for of this worker, if anything."""
        return self.loading if self.loading is not None else self.result


class WorkerPool:
    """Makes units on Ray; use :meth:`outcomes` once."""

    def __init__(
        self,
        arguments: dict[str, Any],
        workers: Workers,
        *,
        on_state: Callable[[PoolState], None] | None = None,
    ) -> None:
        """``arguments`` of every :class:`PairWorker`."""
        self._arguments, self._workers, self._on_state = arguments, workers, on_state
        self._staff: list[_Worker] = []
        self._waiting: list[tuple[int, Unit]] = []
        self._done: dict[int, Outcome] = {}
        self._deaths: Counter[int] = Counter()
        self._failed_starts = self._lost = 0
        self._idle_since, self._looked_at = time.monotonic(), 0.0

    def outcomes(self, units: Sequence[Unit]) -> Iterator[Outcome]:
        """In the order of the units, whatever order they are done in."""
        if not units:
            return

        ensure_ray(max(4, math.ceil(self._workers.most * self._workers.cpus) + 1))
        self._start = self._starter()
        self._waiting = list(enumerate(units))  # sorted, hence a heap
        try:
            for place in range(len(units)):
                while place not in self._done:
                    self._let_go_on_leaving_machines()
                    self._hire()
                    self._dispatch(before=place + AHEAD * self._workers.most)
                    self._dismiss()
                    self._tell()
                    self._wait()
                yield self._done.pop(place)
        finally:
            for worker in list(self._staff):
                self._release(worker)
            self._tell()

    def _wait(self) -> None:
        """For any answer, and take all that are there."""
        import ray

        by_answer = {worker.pending: worker for worker in self._staff if worker.pending is not None}
        ray.wait(list(by_answer), num_returns=1, timeout=POLL_SECONDS)
        answered, _ = ray.wait(list(by_answer), num_returns=len(by_answer), timeout=0)
        for answer in answered:
            self._take(by_answer[answer])

    def _starter(self) -> Callable[[], Any]:
        import ray

        wanted = self._workers
        gpus = wanted.gpus
        if gpus is None:
            gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
        actor = ray.remote(_Actor).options(
            num_cpus=wanted.cpus, num_gpus=gpus, resources=wanted.resources, max_restarts=0
        )
        return actor.remote

    def _open_units(self) -> int:
        return len(self._waiting) + sum(worker.unit is not None for worker in self._staff)

    def _hire(self) -> None:
        wanted = min(self._workers.most, max(self._workers.least, self._open_units()))
        for _ in range(wanted - sum(not worker.leaving for worker in self._staff)):
            actor = self._start()
            self._staff.append(_Worker(actor, loading=actor.load.remote(self._arguments)))

    def _dispatch(self, before: int) -> None:
        """The next units to whoever is free; the earliest is always among them, so nothing waits for ever."""
        for worker in self._staff:
            free = worker.ready and worker.unit is None and not worker.leaving
            if free and self._waiting and self._waiting[0][0] < before:
                worker.place, worker.unit = heapq.heappop(self._waiting)
                worker.result = worker.actor.run.remote(worker.unit)

    def _dismiss(self) -> None:
        """Those for whom nothing is left, beyond the least; first those that never began."""
        spare = sum(not worker.leaving for worker in self._staff) - max(
            self._workers.least, self._open_units()
        )
        for worker in sorted(self._staff, key=lambda worker: worker.ready):
            if worker.unit is None and (worker.leaving or spare > 0):
                spare -= not worker.leaving
                self._release(worker)

    def _release(self, worker: _Worker) -> None:
        import ray

        self._staff.remove(worker)
        ray.kill(worker.actor)

    def _let_go_on_leaving_machines(self) -> None:
        """A machine that will be taken away gets no new unit; what it has in hand may still be done in time."""
        now = time.monotonic()
        if now - self._looked_at > POLL_SECONDS:
            self._looked_at = now
            nodes = draining_nodes()
            for worker in self._staff:
                worker.leaving = worker.leaving or worker.node in nodes

    def _take(self, worker: _Worker) -> None:
        """What a worker has answered: that it is ready, an outcome, or that it is no more."""
        import ray

        try:
            answer = ray.get(worker.pending)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, UserError) else error) from None
        except ray.exceptions.RayError as error:
            self._mourn(worker, error)
            return
        if not worker.ready:
            worker.loading, worker.node = None, answer
            self._failed_starts = 0
        else:
            self._done[worker.place] = answer
            worker.unit = worker.result = None

    def _mourn(self, worker: _Worker, error: Exception) -> None:
        """Its unit waits again, before all later ones."""
        self._staff.remove(worker)
        self._lost += 1
        if worker.unit is None:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise UserError(
                    f"{self._failed_starts} pair workers in a row died while they loaded, last: {_line(error)}; "
                    "look at the memory of their machines"
                )
            return
        unit = worker.unit
        if not getattr(error, "preempted", False) and worker.node in _living_nodes():
            self._deaths[worker.place] += 1
        if self._deaths[worker.place] >= MAX_DEATHS:
            message = f"its worker died {MAX_DEATHS} times: {_line(error)}"
            rows = [
                LedgerRow(input=job.key, status="failed", check="worker", message=message)
                for job in unit.jobs
            ]
            self._done[worker.place] = Outcome(unit.number, [None] * len(rows), rows)
        else:
            heapq.heappush(self._waiting, (worker.place, unit))

    def _tell(self) -> None:
        busy = sum(worker.unit is not None for worker in self._staff)
        ready = sum(worker.ready for worker in self._staff)
        if self._on_state is not None:
            self._on_state(
                PoolState(
                    ready=ready,
                    busy=busy,
                    starting=len(self._staff) - ready,
                    queue=len(self._waiting),
                    lost=self._lost,
                )
            )
        now = time.monotonic()
        if ready or not self._staff:
            self._idle_since = now
        elif now - self._idle_since > PATIENCE_SECONDS:
            self._idle_since = now
            wanted = {"CPU": self._workers.cpus, "GPU": self._workers.gpus or 0} | self._workers.resources
            print(
                f"pairs: no worker is ready yet; each needs {wanted}, and waits for a machine that has it",
                file=sys.stderr,
            )


def _living_nodes() -> set[str]:
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
