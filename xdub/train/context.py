"""Where a rank runs: under Ray Train, or alone in this process. The loop sees only :class:`TrainContext`.

Ray is imported inside the functions that need it.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import torch
import torch.distributed as dist


class TrainContext(Protocol):
    """One rank's view of the job."""

    rank: int
    world_size: int
    local_world_size: int
    """Ranks on this machine."""
    device: torch.device
    node: str
    """Which machine this is, as Ray names it."""

    def gather(self, value: Any) -> list[Any]:
        """Every rank's ``value`` in rank order, on every rank. Collective."""
        ...

    def report(self, metrics: dict[str, float]) -> None:
        """Tell the launcher how far we are. Collective."""
        ...


class LocalContext:
    """One rank in this process, without Ray: tests, debugging, and the shortest start."""

    rank, world_size, local_world_size, node = 0, 1, 1, "local"

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
        if not dist.is_initialized():  # DeepSpeed wants a group even for one rank
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def report(self, metrics: dict[str, float]) -> None:
        """Nobody to tell."""


class RayContext:
    """One worker of a Ray ``TorchTrainer``; Ray has made the process group."""

    def __init__(self) -> None:
        import ray
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.local_world_size = context.get_local_world_size()
        self.local_rank = context.get_local_rank()
        self.device = ray.train.torch.get_device()
        self.node = ray.get_runtime_context().get_node_id()
        self._report = ray.train.report

    def gather(self, value: Any) -> list[Any]:
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def report(self, metrics: dict[str, float]) -> None:
        self._report(metrics)
