"""The size of a pool of workers, and the pool's state at one moment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

from xdub.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Number of workers, and the resources that each of them reserves."""

    least: int = 1
    """Workers kept until the end, even while idle."""
    most: int = 1
    """Upper bound of workers at one time."""
    cpus: float = 0.5
    """Logical CPUs of a worker."""
    gpus: float | None = None
    """GPUs of a worker; None means ``gpu_share`` if the cluster has any."""
    gpu_share: float = 1
    """Share of a GPU that a worker reserves where ``gpus`` is None."""
    resources: dict[str, float] = field(default_factory=dict)
    """Custom resources of Ray, e.g. {"pairgen": 1}, which keep workers off the training machines."""

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or self.most < 1:
            raise UserError(
                f"workers={self.least}:{self.most}: use at least one worker, and a MIN that does not exceed MAX"
            )

    def gpus_on(self, cluster_gpus: float) -> float:
        """Return the GPUs of a worker on a cluster with ``cluster_gpus`` GPUs."""
        return self.gpus if self.gpus is not None else (self.gpu_share if cluster_gpus else 0)

    @classmethod
    def parse(cls, text: str, **others: Any) -> Workers:
        """Parse a number or a range, ``4`` or ``0:8``; ``others`` are further fields."""
        try:
            numbers = [int(part) for part in text.split(":")]
            least, most = numbers if len(numbers) == 2 else (numbers[0], *numbers)
        except (ValueError, IndexError):
            raise UserError(f"workers={text}: give a number, or MIN:MAX such as 0:8") from None
        return cls(least=least, most=most, **others)


def pool_size(workers: int | Workers | None, units: int, gpus: float | None = 0) -> Workers:
    """Return the size of a pool for ``units`` units; ``gpus`` is the default of a worker's GPUs.

    A number of workers, by default one for each core, is an upper bound, and there are no more workers than units.
    """
    if isinstance(workers, Workers):
        return replace(workers, gpus=gpus if workers.gpus is None else workers.gpus)
    most = max(1, min(workers or len(os.sched_getaffinity(0)), units))
    return Workers(least=0, most=most, cpus=1, gpus=gpus)


@dataclass(frozen=True, kw_only=True)
class PoolState:
    """Counts of workers and waiting units, for the progress line and the tracker."""

    ready: int = 0
    """Workers that have loaded their networks."""
    busy: int = 0
    """Workers with a unit."""
    starting: int = 0
    """Workers that load, or wait for a machine."""
    queue: int = 0
    """Units without a worker."""
    lost: int = 0
    """Workers that died so far."""

    def __str__(self) -> str:
        """Format as ``3 workers, 2 busy, 1 starting, 20 units wait``; empty without a worker."""
        if not self.ready and not self.starting:
            return ""
        text = f"{self.ready} workers, {self.busy} busy"
        text += f", {self.starting} starting" if self.starting else ""
        text += f", {self.lost} lost" if self.lost else ""
        return f"{text}, {self.queue} units wait"
