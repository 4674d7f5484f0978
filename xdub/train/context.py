"""Environment of a rank: Ray Train, or this process alone. The training loop sees only :class:`TrainContext`.

Ray is imported inside the functions that need it.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
"""Longest wait of a collective; a watchdog usually ends the rank earlier."""
LOOPBACK = "127.0.0.1"


class TrainContext(Protocol):
    """One rank's view of the job. All ranks must call a method that is marked "collective", in the same order."""

    rank: int
    world_size: int
    local_world_size: int
    """Ranks on this machine."""
    device: torch.device
    node: str
    """Ray's id of this machine."""

    def gather(self, value: T) -> list[T]:
        """Return every rank's ``value`` in rank order, on every rank. Collective."""
        ...

    def report(self, metrics: dict[str, float]) -> None:
        """Report progress to the launcher. Collective."""
        ...


class LocalContext:
    """One rank in this process, without Ray: for tests, debugging, and the shortest start."""

    rank, world_size, local_world_size, node = 0, 1, 1, "local"

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
        if not dist.is_initialized():  # DeepSpeed needs a group even for one rank
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)

    def gather(self, value: T) -> list[T]:
        """Return the one rank's value."""
        return [value]

    def report(self, metrics: dict[str, float]) -> None:
        """Do nothing: there is no launcher."""


class RayContext:
    """One worker of a Ray ``TorchTrainer``; its constructor joins the process group of all ranks."""

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
        ranks = {"RANK": self.rank, "LOCAL_RANK": self.local_rank, "NODE_RANK": context.get_node_rank()}
        ranks |= {"WORLD_SIZE": self.world_size, "LOCAL_WORLD_SIZE": self.local_world_size}
        os.environ.update({name: str(value) for name, value in ranks.items()})
        self._join_group()

    def gather(self, value: T) -> list[T]:
        """Return every rank's ``value`` in rank order, on every rank. Collective."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def report(self, metrics: dict[str, float]) -> None:
        """Report progress to Ray Train. Collective."""
        self._report(metrics)

    def _join_group(self) -> None:
        """Initialize torch's process group.

        Rank 0 keeps its store on an address of its own choice, because torch's and Ray's stores listen on every
        address: on loopback where all ranks run on one machine, else on the address that Ray uses.
        """
        from ray.train.collective import broadcast_from_rank_zero

        one_machine = self.local_world_size == self.world_size
        if one_machine and Path("/sys/class/net/lo").exists():
            for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
                os.environ.setdefault(name, "lo")
        # A rank whose peer died must fail instead of waiting.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
        if self.rank == 0:
            host = LOOPBACK if one_machine else _address_of(self.node)
            store, port = _open_store(host, self.world_size)
            broadcast_from_rank_zero((host, port))
        else:
            host, port = broadcast_from_rank_zero(None)
            store = dist.TCPStore(host, port, self.world_size, is_master=False, timeout=TIMEOUT)
        dist.init_process_group(
            "nccl" if self.device.type == "cuda" else "gloo",
            store=store,
            rank=self.rank,
            world_size=self.world_size,
            timeout=TIMEOUT,
        )


def _address_of(node: str) -> str:
    """Return the address by which Ray's other machines reach a machine."""
    import ray

    return next(info["NodeManagerAddress"] for info in ray.nodes() if info["NodeID"] == node)


def _open_store(host: str, world_size: int) -> tuple[dist.TCPStore, int]:
    """Return a store that listens on ``host`` alone, and its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    port = listener.getsockname()[1]
    store = dist.TCPStore(
        host,
        port,
        world_size,
        is_master=True,
        timeout=TIMEOUT,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )
    return store, port
