"""Bytes and seconds of tensors that are kept in CPU memory: the optimizer's states, and frozen blocks."""

from __future__ import annotations

from xdub.config import DubConfig, PairsConfig, TrainConfig
from xdub.model.offload import SLOTS
from xdub.plan.network import Parameters
from xdub.precision import number_bytes

HOST_LINK = 25e9
"""ASSUMPTION: bytes/s between CPU memory and a GPU, of pinned memory over PCIe 4.0 x16."""
HOST_MEMORY = 50e9
"""ASSUMPTION: bytes/s of CPU memory for one GPU's share of the optimizer."""
UPDATE_BYTES = 28
"""Bytes that AdamW reads and writes for one fp32 weight: gradient, weight and two moments, all but the first twice."""


def training_transfer_seconds(train: TrainConfig, count: Parameters, compute: float) -> float:
    """Return the seconds by which offload prolongs a step of ``compute`` seconds.

    Blocks are copied while their predecessors run, so only the time beyond the computation counts. The optimizer's
    transfers and its update on the CPU follow the backward pass.
    """
    seconds = 0.0
    if train.offloads("blocks"):
        micro_batches = train.global_batch // (
            train.micro_batch_of(train.workers) * train.groups_of(train.workers)
        )
        copied = 2 * micro_batches * count.frozen_blocks.bytes_in(train.precision)
        seconds += max(0.0, copied / HOST_LINK - compute)
    if train.offloads("optimizer"):
        mine = count.trained / train.workers
        transferred = 2 * number_bytes(train.precision) * mine
        seconds += transferred / HOST_LINK + UPDATE_BYTES * mine / HOST_MEMORY
    return seconds


def resident_share(settings: PairsConfig | DubConfig, blocks: int) -> float:
    """Return the share of the blocks' bytes that the device holds while it samples."""
    return min(1.0, SLOTS / blocks) if settings.offload == "blocks" else 1.0


def sampling_transfer_seconds(
    settings: PairsConfig | DubConfig, block_bytes: float, evaluations: int, compute: float
) -> float:
    """Return the seconds by which offload prolongs a window of ``compute`` seconds.

    ``block_bytes``: bytes of all blocks, divided by the windows that are sampled together.
    """
    if settings.offload != "blocks":
        return 0.0
    return max(0.0, evaluations * block_bytes / HOST_LINK - compute)
