"""Facts of this machine that decide whether a recipe runs: device, precision, DeepSpeed, disk, shared memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from xdub.config import Recipe
from xdub.doctor.rows import Examiner
from xdub.errors import UserError

SHARED_MEMORY_GB = 1.0
"""Least shared memory with which NCCL and Ray work between the GPUs of one machine."""
BF16_CAPABILITY = (8, 0)
"""First CUDA capability with units for bf16: Ampere."""


def check_machine(examiner: Examiner, recipe: Recipe, scratch: Path) -> None:
    """Add the rows of this machine."""
    examiner.part = "machine"
    examiner.check("device", lambda: _device(recipe, examiner.device))
    examiner.check(
        "deepspeed", lambda: _deepspeed(examiner.device), fix="install the versions of constraints.txt"
    )
    examiner.check("disk", lambda: _disk(scratch))
    examiner.check("shared memory", _shared_memory)


def _device(recipe: Recipe, device: torch.device) -> str:
    """Return words for the device. Raise UserError for a GPU without the recipe's precision."""
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"no GPU: CPU, {os.cpu_count()} cores, {threads} thread{'s' * (threads > 1)}; torch {torch.__version__}"
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    half = any(recipe.for_phase(phase).precision == "bf16" for phase in recipe.phase_names)
    if half and capability < BF16_CAPABILITY:
        raise UserError(f"{name} has no units for bf16; --set train.precision=fp32, or use an A100 or newer")
    free, total = torch.cuda.mem_get_info(device)
    # A kernel that the driver cannot run fails here and not in the middle of a network.
    torch.ones(8, 8, device=device).matmul(torch.ones(8, 8, device=device)).sum().item()
    memory = f"{total / 2**30:.0f} GiB, {free / 2**30:.0f} free"
    return f"{name}, {memory}; torch {torch.__version__}, CUDA {torch.version.cuda}"


def _deepspeed(device: torch.device) -> str:
    from xdub.train.deepspeed_setup import import_deepspeed

    return f"DeepSpeed {import_deepspeed(device).__version__}"


def _disk(scratch: Path) -> str:
    """Return words for the disk of the rehearsal. Raise UserError if it is nearly full."""
    free = shutil.disk_usage(scratch).free / 1e9
    if free < 5:
        raise UserError(f"{scratch}: {free:.1f} GB free; free some, or set TMPDIR to another disk")
    return f"{scratch.parent}: {free:.0f} GB free"


def _shared_memory() -> str:
    """Return words for /dev/shm, which NCCL uses between GPUs. Raise UserError if several GPUs have too little."""
    path = Path("/dev/shm")
    if not path.is_dir():
        return "no /dev/shm"
    total = shutil.disk_usage(path).total / 1e9
    if total < SHARED_MEMORY_GB and torch.cuda.device_count() > 1:
        raise UserError(
            f"/dev/shm has {total:.2f} GB for several GPUs; start the container with --shm-size=8g"
        )
    return f"/dev/shm: {total:.1f} GB"
