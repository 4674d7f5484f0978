"""How many workers the Ray cluster can give, which of its machines are going away, and waiting for others."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from xdub.errors import UserError
from xdub.ray_session import draining_nodes, ensure_ray

if TYPE_CHECKING:
    from xdub.config import TrainConfig

POLL_SECONDS = 2.0
WAIT_SECONDS = 1800.0
"""How long a run that lost machines waits for as many as it needs: what an autoscaler or a repair takes."""


def use_gpu() -> bool:
    """Whether workers get a GPU each. Asked of the cluster, since the driver's own machine may have none."""
    import ray

    if ray.is_initialized():
        return (ray.cluster_resources() | _may_grow_to()).get("GPU", 0) > 0
    import torch

    return torch.cuda.is_available()


def per_worker(train: TrainConfig) -> dict[str, float]:
    """What Ray gives to each worker."""
    wanted = {"CPU": 1.0} | ({"GPU": 1.0} if use_gpu() else {})
    return wanted | ({train.resource: 1.0} if train.resource else {})


def capacity(train: TrainConfig) -> int:
    """Workers that fit on machines that are there to stay."""
    import ray

    leaving = draining_nodes()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    return _fit_into([node["Resources"] for node in nodes], train)


def _fit_into(machines: list[dict[str, float]], train: TrainConfig) -> int:
    """One GPU each, or one CPU each and one for the data; and one of `train.resource` if it has a name."""
    wanted = per_worker(train)
    scarce = "GPU" if "GPU" in wanted else "CPU"
    names = {scarce, *(name for name in wanted if name not in ("CPU", "GPU"))}
    total = sum(int(min(machine.get(name, 0) for name in names)) for machine in machines)
    return total if scarce == "GPU" or train.resource else max(0, total - 1)


def _may_grow_to() -> dict[str, float]:
    """All that a cluster with an autoscaler may have, by its configuration; {} without one."""
    import ray

    return ray._private.state.state.get_max_resources_from_cluster_config() or {}


def ask_autoscaler(train: TrainConfig, workers: int) -> None:
    """Have machines for so many workers started and kept, or (0) no longer. Without an autoscaler nothing happens."""
    from ray.autoscaler.sdk import request_resources

    if _may_grow_to():
        request_resources(bundles=[per_worker(train)] * workers)


def choose_workers(train: TrainConfig, available: int) -> int | None:
    """As many as wanted, else the most from `min_workers` on that fit and divide the global batch; None = too few."""
    for count in range(train.workers, (train.min_workers or train.workers) - 1, -1):
        if count <= available and train.global_batch % count == 0:
            return count
    return None


def check_resources(train: TrainConfig) -> None:
    """UserError, at once, for what the cluster can not give: Ray would wait for it for ever."""
    ensure_ray(train.workers + 2)
    have = max(capacity(train), _fit_into([_may_grow_to()], train))
    if choose_workers(train, have) is None:
        raise UserError(_too_few(train, have))


def wait_for_workers(train: TrainConfig, stopped: Any) -> int:
    """The number of workers to start with now, or as soon as machines are back. UserError when none come.

    ``stopped``: function that tells whether the user has given up waiting; then 0.
    """
    ensure_ray(train.workers + 2)
    end, told = time.monotonic() + WAIT_SECONDS, False
    while not stopped():
        have = capacity(train)
        count = choose_workers(train, have)
        if count is not None:
            return count
        if time.monotonic() > end:
            raise UserError(f"{_too_few(train, have)}; run again with --resume when they are there")
        if not told:
            print(f"{_too_few(train, have)}; waiting for more", file=sys.stderr)
            ask_autoscaler(train, train.workers)
            told = True
        time.sleep(POLL_SECONDS)
    return 0


def reason_to_restart(train: TrainConfig, workers: int, nodes: Collection[str]) -> str | None:
    """Why a healthy worker group should checkpoint and start anew: one of its machines is going, or more are there."""
    leaving = draining_nodes() & set(nodes)
    if leaving:
        return f"{len(leaving)} of its machines will be taken away"
    more = choose_workers(train, capacity(train))
    if more is not None and more > workers:
        return f"there is room for {more} workers now, not {workers}"
    return None


def _too_few(train: TrainConfig, have: int) -> str:
    what = "GPUs" if use_gpu() else "CPUs and one for the data"
    if train.resource is not None:
        what += f" on machines that offer the Ray resource {train.resource!r}"
    least = train.min_workers or train.workers
    name = "train.workers" if least == train.workers else "train.min_workers"
    return (
        f"{name}={least} needs {least} {what}; this Ray has room for {have} workers: lower it or add machines"
    )
