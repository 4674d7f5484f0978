"""An elastic pool of workers on Ray: as many workers as the queue needs, on any machines.

A worker is an actor that processes one unit at a time. The pool requests workers by the length of the queue, and a
cluster with an autoscaler adds machines for workers that cannot be placed. Idle workers are stopped at once, so that
the autoscaler can remove their machines. If a worker dies or its machine is reclaimed, only its current unit is
repeated.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from xdub.errors import UserError
from xdub.pool.queue import Key, UnitQueue
from xdub.pool.worker import PoolActor, Worker
from xdub.pool.workers import PoolState, Workers
from xdub.ray_machines import (
    PATIENCE_SECONDS,
    draining_nodes,
    resource_list,
    wait_for_worker,
)
from xdub.ray_session import disconnect, ensure_ray

MAX_FAILED_STARTS = 5
"""Number of workers in a row that may die before they are ready; then the run stops with an error."""
AHEAD = 4
"""Units per worker that may finish before an earlier one does; their outcomes wait in the driver's memory."""
POLL_SECONDS = 1.0
"""Longest wait for a worker's answer before the pool checks its size again."""

Unit = TypeVar("Unit")
Outcome = TypeVar("Outcome")


@dataclass
class _Worker(Generic[Unit]):
    """A worker as the driver sees it."""

    actor: Any
    loading: Any = None
    """Pending result of `load`; None once the worker is ready."""
    node: str = ""
    unit: Unit | None = None
    key: Key = (-1, 0)
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


class WorkerPool(Generic[Unit, Outcome]):
    """Pool of Ray actors that processes units; call :meth:`outcomes` once."""

    def __init__(
        self,
        factory: Callable[..., Worker[Unit, Outcome]],
        arguments: Mapping[str, Any],
        workers: Workers,
        *,
        name: str,
        failed: Callable[[Unit, str], Outcome],
        split: Callable[[Unit], Sequence[Unit]] | None = None,
        local: bool = False,
        keep_ray: bool = True,
        on_state: Callable[[PoolState], None] | None = None,
    ) -> None:
        """Keep the settings; nothing starts before `outcomes`.

        Args:
            factory: class of the workers, called with ``arguments`` in each actor.
            workers: size of the pool and resources of a worker.
            name: the verb, for messages.
            failed: returns the outcome of a unit whose workers died, with the reason in words.
            split: returns the parts of a unit of several inputs, see `UnitQueue`; each part has its own outcome.
            local: run one worker in this process, without Ray.
            keep_ray: keep a Ray of our own for the next call; False ends it with the outcomes.
        """
        self._factory, self._arguments, self._size, self._name = factory, arguments, workers, name
        self._failed, self._split = failed, split
        self._local, self._keep_ray, self._on_state = local, keep_ray, on_state
        self._workers: list[_Worker[Unit]] = []
        self._failed_starts = self._lost = 0
        self._idle_since, self._checked_nodes = time.monotonic(), 0.0

    def outcomes(self, units: Iterable[Unit]) -> Iterator[Outcome]:
        """Yield outcomes in the order of the units, regardless of the order in which units finish."""
        if self._local:
            worker: Worker[Unit, Outcome] | None = None
            for unit in units:
                worker = worker or self._factory(**self._arguments)
                yield worker.run(unit)
            return
        ahead = AHEAD * self._size.most
        self._queue = UnitQueue(units, ahead=ahead, failed=self._failed, split=self._split)
        if self._queue.finished:
            return
        started = ensure_ray(max(4, math.ceil(self._size.most * self._size.cpus) + 1))
        try:
            yield from self._remote_outcomes()
        finally:
            if started and not self._keep_ray:
                disconnect()

    def _remote_outcomes(self) -> Iterator[Outcome]:
        self._needs = self._worker_needs()
        self._new_actor = self._actor_factory()
        wait_for_worker(self._name, self._needs)
        try:
            while not self._queue.finished:
                while not self._queue.ready:
                    self._mark_draining_workers()
                    self._start_workers()
                    self._assign_units()
                    self._stop_idle_workers()
                    self._report_state()
                    self._wait()
                yield self._queue.next_outcome()
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

        gpus = self._size.gpus_on(ray.cluster_resources().get("GPU", 0))
        return {"CPU": self._size.cpus, "GPU": gpus} | self._size.resources

    def _actor_factory(self) -> Callable[[], Any]:
        import ray

        actor = ray.remote(PoolActor).options(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs["GPU"],
            resources=self._size.resources,
            max_restarts=0,
        )
        return actor.remote

    def _start_workers(self) -> None:
        """Start workers until there is one per open unit, within the bounds."""
        target = min(self._size.most, max(self._size.least, self._queue.open))
        for _ in range(target - sum(not worker.draining for worker in self._workers)):
            actor = self._new_actor()
            loading = actor.load.remote(self._factory, dict(self._arguments), gpus=self._needs["GPU"])
            self._workers.append(_Worker(actor, loading=loading))

    def _assign_units(self) -> None:
        """Assign the next units to idle workers, the earliest unit first."""
        for worker in self._workers:
            idle = worker.ready and worker.unit is None and not worker.draining
            if idle and (taken := self._queue.take()) is not None:
                worker.key, worker.unit = taken
                worker.result = worker.actor.run.remote(worker.unit)

    def _stop_idle_workers(self) -> None:
        """Stop workers without a unit beyond the lower bound, those that are not ready first."""
        active = sum(not worker.draining for worker in self._workers)
        spare = active - max(self._size.least, self._queue.open)
        for worker in sorted(self._workers, key=lambda worker: worker.ready):
            if worker.unit is None and (worker.draining or spare > 0):
                spare -= not worker.draining
                self._stop_worker(worker)

    def _stop_worker(self, worker: _Worker[Unit]) -> None:
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

    def _receive(self, worker: _Worker[Unit]) -> None:
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
            self._queue.finish(worker.key, answer)
            worker.unit = worker.result = None

    def _on_worker_lost(self, worker: _Worker[Unit], error: Exception) -> None:
        """Return the unit of a dead worker to the queue."""
        self._workers.remove(worker)
        self._lost += 1
        if worker.unit is None:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise UserError(
                    f"{self._name}: {self._failed_starts} workers in a row died while they loaded, last: "
                    f"{_cause(error)}"
                )
            return
        guilty = not getattr(error, "preempted", False) and worker.node in _live_nodes()
        self._queue.died(worker.key, worker.unit, _line(error), guilty=guilty)

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
                    queue=self._queue.waiting,
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
                f"{self._name}: no worker is ready yet; each needs {resource_list(self._needs)}, free are {free}; "
                "waiting for a machine with these resources, or for the networks to load",
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
