"""Ranks of a gloo group on this machine, for tests and benchmarks of collective code."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

T = TypeVar("T")
SECONDS = 120
"""Longest run of all ranks together."""


def run_ranks(world_size: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``function(rank, world_size, *arguments)`` on every rank, and return rank 0's result, which must be small.

    Raise RuntimeError if a rank fails, or runs longer than two minutes.
    """
    # A fork inherits the imports of this process, of which that of deepspeed alone takes seconds. It also inherits a
    # process group, so a process that has one starts its ranks afresh; ``function`` must then be importable.
    context = mp.get_context("spawn") if dist.is_initialized() else mp.get_context("fork")
    queue = context.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        common = (world_size, Path(folder) / "store", queue, function, arguments)
        ranks = [context.Process(target=_rank, args=(rank, *common)) for rank in range(world_size)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(SECONDS)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    if any(codes) or None in codes:
        raise RuntimeError(f"ranks ended with {codes}")
    return queue.get()


class GroupContext:
    """One rank of `run_ranks` as the training loop sees it."""

    device, node = torch.device("cpu"), "local"

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size, self.local_world_size = rank, world_size, world_size

    def gather(self, value: T) -> list[T]:
        """Return every rank's ``value`` in rank order, on every rank. Collective."""
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def report(self, metrics: dict[str, float]) -> None:
        """Do nothing: there is no launcher."""


def _rank(rank: int, world_size: int, store: Path, queue: Any, function: Any, arguments: Any) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    result = function(rank, world_size, *arguments)
    if rank == 0:
        queue.put(result)
    dist.barrier()
    dist.destroy_process_group()
