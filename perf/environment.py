"""The machine and the code that a measurement belongs to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from xdub.tracking.provenance import device_name

ROOT = Path(__file__).parents[1]
"""Folder of the checkout."""


def environment() -> dict[str, Any]:
    """Return GPU (None without one), driver, processor, versions, commit, and whether the tree is dirty."""
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "gpu": gpu.name if gpu else None,
        "capability": f"{gpu.major}.{gpu.minor}" if gpu else None,
        "memory_gib": round(gpu.total_memory / 2**30, 1) if gpu else None,
        "l2_mib": round(gpu.L2_cache_size / 2**20) if gpu else None,
        "driver": _smi("driver_version"),
        "max_sm_mhz": _smi("clocks.max.sm"),
        "cpu": device_name(torch.device("cpu")),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "flash_attn": _version("flash-attn"),
        "deepspeed": _version("deepspeed"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpu else None,
        "python": platform.python_version(),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _smi(query: str) -> str | None:
    if not torch.cuda.is_available():
        return None
    device = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    return _output("nvidia-smi", f"--id={device}", f"--query-gpu={query}", "--format=csv,noheader,nounits")


def clock_mhz() -> int | None:
    """Return the current clock of the streaming multiprocessors; None without a GPU."""
    clock = _smi("clocks.sm")
    return int(clock) if clock and clock.isdigit() else None


def _git(*arguments: str) -> str | None:
    return _output("git", "-C", str(ROOT), *arguments)


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""
