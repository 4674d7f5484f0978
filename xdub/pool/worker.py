"""The interface of a worker, the stopwatch of its steps, and the Ray actor around one."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

UnitIn = TypeVar("UnitIn", contravariant=True)
OutcomeOut = TypeVar("OutcomeOut", covariant=True)


class Worker(Protocol[UnitIn, OutcomeOut]):
    """A class whose constructor loads networks once, and whose objects process one unit at a time.

    Its arguments are picklable. ``run`` records the errors of its inputs in the outcome: an error that it raises stops
    the whole run. An outcome holds facts, never pixels, because all outcomes pass through the driver.
    """

    name: str
    """Host of the worker, for the ledger; the pool appends the machine's id."""

    def run(self, unit: UnitIn, /) -> OutcomeOut:
        """Process a unit."""


class StepTimer:
    """Stopwatch for the steps of a unit."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        """Count the time since the last call for a step."""
        now = time.perf_counter()
        self.seconds[step] += now - self._last
        self._last = now


class PoolActor:
    """A worker in a Ray actor. Loading is a separate call, so that its errors differ from those of a unit."""

    def load(
        self, factory: Callable[..., Worker[Any, Any]], arguments: Mapping[str, Any], *, gpus: float
    ) -> str:
        """Load all networks; return the id of the machine.

        An actor that reserved no GPU sees none. Ray leaves all GPUs of the machine visible to it, so the actors of all
        cores would share the memory of the first one.
        """
        import ray

        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._worker = factory(**arguments)
        node = ray.get_runtime_context().get_node_id()
        self._worker.name = f"{self._worker.name}/{node[:8]}"
        return node

    def run(self, unit: Any) -> Any:
        """Process a unit."""
        return self._worker.run(unit)
