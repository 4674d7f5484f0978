"""An elastic pool of pair workers on Ray: as many workers as the queue needs, on any machines.

A worker is an actor that processes one unit at a time. The pool requests workers by the length of the queue, and a
cluster with an autoscaler adds machines for workers that cannot be placed. Idle workers are stopped at once, so that
the autoscaler can remove their machines. If a worker dies or its machine is reclaimed, only its current unit is
repeated.
"""

from __future__ import annotations

import heapq
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from xdub.data.ledger import LedgerRow
from xdub.errors import UserError
from xdub.pairs.units import Unit
from xdub.pairs.worker import Outcome, PairWorker
from xdub.pairs.workers import PoolState, Workers
from xdub.ray_machines import (
    PATIENCE_SECONDS,
    draining_nodes,
    resource_list,
    wait_for_worker,
)
from xdub.ray_session import ensure_ray

MAX_DEATHS = 3
"""Number of workers that may die while they process a unit, before its inputs fail; lost machines do not count."""
MAX_FAILED_STARTS = 5
"""Number of workers in a row that may die before they are ready; then the run stops with an error."""
AHEAD = 4
"""Units per worker that may finish before an earlier one does; their pairs wait in the driver's memory."""
POLL_SECONDS = 1.0
"""Longest wait for a worker's answer before the pool checks its size again."""


class PairActor:
    """A pair worker in a Ray actor. Loading is a separate call, so that its errors differ from those of a unit."""

    def load(self, arguments: dict[str, Any]) -> str:
        """Load all networks; return the id of the machine."""
        import ray

        # Use one thread, because sums in the same order have the same bits on every machine.
        self._worker = PairWorker(**arguments, threads=1)
        node = ray.get_runtime_context().get_node_id()
        self._worker.name = f"{self._worker.name}/{node[:8]}"
        return node

    def run(self, unit: Unit) -> Outcome:
        """Build the pairs of a unit."""
        return self._worker.run(unit)


@dataclass
class _Worker:
    """A worker as the driver sees it."""

    actor: Any
    loading: Any = None
    """Pending result of `load`; None once the worker is ready."""
    node: str = ""
    unit: Unit | None = None
    number: int = -1
    """Position of the unit in the order of outcomes."""
    result: Any = None
    """Pending outcome of the unit."""
    draining: bool = False
    """True if the worker's machine is about to be reclaimed."""

    @property
    def ready(self) -> bool:
        return self.loading is None

    @property
    def pending(self) -> Any:
        """The Ray reference that the pool waits for, None for an idle worker."""
        return self.loading if self.loading is not None else self.result


class WorkerPool:
    """Pool of Ray actors that builds units; call :meth:`outcomes` once."""

    def __init__(
        self,
        arguments: dict[str, Any],
        workers: Workers,
        *,
        on_state: Callable[[PoolState], None] | None = None,
    ) -> None:
        """Keep the settings; nothing starts before `outcomes`. ``arguments`` are those of every `PairWorker`."""
        self._arguments, self._size, self._on_state = arguments, workers, on_state
        self._workers: list[_Worker] = []
        self._waiting: list[tuple[int, Unit]] = []
        self._done: dict[int, Outcome] = {}
        self._deaths: Counter[int] = Counter()
        self._failed_starts = self._lost = 0
        self._idle_since, self._checked_nodes = time.monotonic(), 0.0

    def outcomes(self, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Yield outcomes in the order of the units, regardless of the order in which units finish."""
        if not units:
            return

        ensure_ray(max(4, math.ceil(self._size.most * self._size.cpus) + 1))
        self._needs = self._worker_needs()
        self._new_actor = self._actor_factory()
        wait_for_worker("pairs", self._needs)
        # A sorted list is a heap.
        self._waiting = list(enumerate(units))
        try:
            for number in range(len(units)):
                while number not in self._done:
                    self._mark_draining_workers()
                    self._start_workers()
                    self._assign_units(before=number + AHEAD * self._size.most)
                    self._stop_idle_workers()
                    self._report_state()
                    self._wait()
                yield self._done.pop(number)
        finally:
            for worker in list(self._workers):
                self._stop_worker(worker)
            self._report_state()

    def _wait(self) -> None:
        """Wait for one answer, then process all answers that have arrived."""
        import ray

        workers = {worker.pending: worker for worker in self._workers if worker.pending is not None}
        ray.wait(list(workers), num_returns=1, timeout=POLL_SECONDS)
        answers, _ = ray.wait(list(workers), num_returns=len(workers), timeout=0)
        for answer in answers:
            self._receive(workers[answer])

    def _worker_needs(self) -> dict[str, float]:
        """Return the Ray resources of one worker."""
        import ray

        gpus = self._size.gpus
        if gpus is None:
            gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
        return {"CPU": self._size.cpus, "GPU": gpus} | self._size.resources

    def _actor_factory(self) -> Callable[[], Any]:
        import ray

        actor = ray.remote(PairActor).options(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs["GPU"],
            resources=self._size.resources,
            max_restarts=0,
        )
        return actor.remote

    def _open_units(self) -> int:
        return len(self._waiting) + sum(worker.unit is not None for worker in self._workers)

    def _start_workers(self) -> None:
        """Start workers until there is one per open unit, within the bounds."""
        target = min(self._size.most, max(self._size.least, self._open_units()))
        for _ in range(target - sum(not worker.draining for worker in self._workers)):
            actor = self._new_actor()
            self._workers.append(_Worker(actor, loading=actor.load.remote(self._arguments)))

    def _assign_units(self, before: int) -> None:
        """Assign the next units to idle workers, the earliest unit first, so that no unit waits forever."""
        for worker in self._workers:
            idle = worker.ready and worker.unit is None and not worker.draining
            if idle and self._waiting and self._waiting[0][0] < before:
                worker.number, worker.unit = heapq.heappop(self._waiting)
                worker.result = worker.actor.run.remote(worker.unit)

    def _stop_idle_workers(self) -> None:
        """Stop workers without a unit beyond the lower bound, those that are not ready first."""
        active = sum(not worker.draining for worker in self._workers)
        spare = active - max(self._size.least, self._open_units())
        for worker in sorted(self._workers, key=lambda worker: worker.ready):
            if worker.unit is None and (worker.draining or spare > 0):
                spare -= not worker.draining
                self._stop_worker(worker)

    def _stop_worker(self, worker: _Worker) -> None:
        import ray

        self._workers.remove(worker)
        ray.kill(worker.actor)

    def _mark_draining_workers(self) -> None:
        """Mark workers on machines that are about to be reclaimed; they get no new unit but may finish theirs."""
        now = time.monotonic()
        if now - self._checked_nodes > POLL_SECONDS:
            self._checked_nodes = now
            nodes = draining_nodes()
            for worker in self._workers:
                worker.draining = worker.draining or worker.node in nodes

    def _receive(self, worker: _Worker) -> None:
        """Process a worker's answer: the worker is ready, has finished its unit, or has died."""
        import ray

        try:
            answer = ray.get(worker.pending)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, UserError) else error) from None
        except ray.exceptions.RayError as error:
            self._on_worker_lost(worker, error)
            return
        if not worker.ready:
            worker.loading, worker.node = None, answer
            self._failed_starts = 0
        else:
            self._done[worker.number] = answer
            worker.unit = worker.result = None

    def _on_worker_lost(self, worker: _Worker, error: Exception) -> None:
        """Put the unit of a dead worker back at the head of the queue, or fail it after too many deaths."""
        self._workers.remove(worker)
        self._lost += 1
        if worker.unit is None:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise UserError(
                    f"{self._failed_starts} pair workers in a row died while they loaded, last: {_cause(error)}"
                )
            return
        unit = worker.unit
        if not getattr(error, "preempted", False) and worker.node in _live_nodes():
            self._deaths[worker.number] += 1
        if self._deaths[worker.number] >= MAX_DEATHS:
            message = f"its worker died {MAX_DEATHS} times: {_line(error)}"
            rows = [
                LedgerRow(input=job.key, status="failed", check="worker", message=message)
                for job in unit.jobs
            ]
            self._done[worker.number] = Outcome(unit.number, [None] * len(rows), rows)
        else:
            heapq.heappush(self._waiting, (worker.number, unit))

    def _report_state(self) -> None:
        """Report the counts, and print the needed resources when no worker has been ready for a minute."""
        busy = sum(worker.unit is not None for worker in self._workers)
        ready = sum(worker.ready for worker in self._workers)
        if self._on_state is not None:
            self._on_state(
                PoolState(
                    ready=ready,
                    busy=busy,
                    starting=len(self._workers) - ready,
                    queue=len(self._waiting),
                    lost=self._lost,
                )
            )
        now = time.monotonic()
        if ready or not self._workers:
            self._idle_since = now
        elif now - self._idle_since > PATIENCE_SECONDS:
            self._idle_since = now
            import ray

            free = resource_list(ray.available_resources())
            print(
                f"pairs: no worker is ready yet; each needs {resource_list(self._needs)}, free are {free}; waiting "
                "for a machine with these resources, or for the networks to load",
                file=sys.stderr,
            )


def _live_nodes() -> set[str]:
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _line(error: Exception) -> str:
    """Shorten an error's text to one line of 200 characters."""
    return " ".join(str(error).split())[:200]


def _cause(error: Exception) -> str:
    """Return why a worker died before it was ready: the last line of its exception, or Ray's text about the process."""
    text = str(error)
    if "creation task" in text:
        return [line.strip() for line in text.splitlines() if line.strip()][-1][:200]
    return f"{_line(error)}; the kernel ends processes when a machine has no memory left, so check it"
