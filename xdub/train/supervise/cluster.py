"""Count the workers that fit into the Ray cluster, find machines that are leaving, and wait for more machines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from xdub.errors import UserError
from xdub.ray_machines import autoscaler_limits, draining_nodes, wait_for_worker
from xdub.ray_session import ensure_ray, is_ours

if TYPE_CHECKING:
    from xdub.config import TrainConfig

POLL_SECONDS = 2.0
"""Pause between two checks of the cluster."""
WAIT_SECONDS = 1800.0
"""Longest wait of a run that lost machines: an autoscaler or a repair needs that time to replace them."""


def use_gpu() -> bool:
    """Return True if every worker gets a GPU. The cluster decides, because the driver's own machine may have none."""
    import ray

    if ray.is_initialized():
        return (ray.cluster_resources() | autoscaler_limits()).get("GPU", 0) > 0
    import torch

    return torch.cuda.is_available()


def per_worker(train: TrainConfig) -> dict[str, float]:
    """Return the resources that Ray reserves for each worker."""
    resources = {"CPU": 1.0} | ({"GPU": 1.0} if use_gpu() else {})
    return resources | ({train.resource: 1.0} if train.resource else {})


def capacity(train: TrainConfig) -> int:
    """Count the workers that fit on machines that are not about to be reclaimed."""
    import ray

    leaving = draining_nodes()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    return _fit_into([node["Resources"] for node in nodes], train)


def _fit_into(machines: Sequence[Mapping[str, float]], train: TrainConfig) -> int:
    """Count the workers that fit.

    A worker needs one GPU. In a cluster without GPUs it needs one CPU, and one more CPU is kept for the data. With
    `train.resource` it also needs one of that resource.
    """
    resources = per_worker(train)
    scarce = "GPU" if "GPU" in resources else "CPU"
    names = {scarce, *(name for name in resources if name not in ("CPU", "GPU"))}
    total = sum(int(min(machine.get(name, 0) for name in names)) for machine in machines)
    return total if scarce == "GPU" or train.resource else max(0, total - 1)


def request_machines(train: TrainConfig, workers: int) -> None:
    """Request machines for ``workers`` workers and keep them; 0 ends the request. Do nothing without an autoscaler."""
    from ray.autoscaler.sdk import request_resources

    if autoscaler_limits():
        request_resources(bundles=[per_worker(train)] * workers)


def choose_workers(train: TrainConfig, available: int) -> int | None:
    """Return the largest number of workers that fits and shares the global batch; None: fewer than `min_workers`."""
    for count in range(train.workers, (train.min_workers or train.workers) - 1, -1):
        groups, rest = divmod(count, train.sequence_parallel)
        if count <= available and not rest and groups and train.global_batch % groups == 0:
            return count
    return None


def check_resources(train: TrainConfig) -> None:
    """Raise UserError for resources that the cluster can never provide: Ray would wait for them without end.

    Wait for the first worker on machines that are busy; `wait_for_workers` waits for machines of an autoscaler.
    """
    ensure_ray(train.workers + 2)
    available = max(capacity(train), _fit_into([autoscaler_limits()], train))
    if choose_workers(train, available) is None:
        raise UserError(_too_few(train, available))
    wait_for_worker("train", per_worker(train), variables=None if is_ours() else {"PYTHONSAFEPATH": "1"})


def wait_for_workers(train: TrainConfig, stopped: Callable[[], bool]) -> int:
    """Wait for machines; return the number of workers that they allow.

    ``stopped``: returns True when the user has requested a stop; the result is then 0. Raise UserError after
    `WAIT_SECONDS` without enough machines.
    """
    ensure_ray(train.workers + 2)
    end, waiting = time.monotonic() + WAIT_SECONDS, False
    while not stopped():
        available = capacity(train)
        count = choose_workers(train, available)
        if count is not None:
            return count
        if time.monotonic() > end:
            raise UserError(f"{_too_few(train, available)}; run again with --resume when there are enough")
        if not waiting:
            print(f"{_too_few(train, available)}; waiting for more", file=sys.stderr)
            request_machines(train, train.workers)
            waiting = True
        time.sleep(POLL_SECONDS)
    return 0


def reason_to_restart(train: TrainConfig, workers: int, nodes: Collection[str]) -> str | None:
    """Return why a healthy worker group on ``nodes`` should checkpoint and restart, or None.

    Reasons are a machine of the group that is about to be reclaimed, and room for more workers.
    """
    leaving = draining_nodes() & set(nodes)
    if leaving:
        return f"{len(leaving)} of its machines will be reclaimed"
    more = choose_workers(train, capacity(train))
    if more is not None and more > workers:
        return f"there is room for {more} workers now, not {workers}"
    return None


def _too_few(train: TrainConfig, available: int) -> str:
    """Return the message about missing machines."""
    unit = "GPUs" if use_gpu() else "CPUs and one for the data"
    if train.resource is not None:
        unit += f" on machines that offer the Ray resource {train.resource!r}"
    least = train.min_workers or train.workers
    name = "train.workers" if least == train.workers else "train.min_workers"
    return f"{name}={least} needs {least} {unit}, and this Ray has room for {available}; lower it or add machines"
