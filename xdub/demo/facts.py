"""Machine and package versions of a demo."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "ray", "deepspeed", "mlflow", "numpy", "mediapipe", "moderngl", "av")
"""Packages whose versions can change the figures."""


def versions() -> dict[str, str]:
    """Return the versions of xdub, Python and the installed `PACKAGES`."""
    import xdub

    result = {"xdub": xdub.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            result[name] = version(name)
        except PackageNotFoundError:
            continue
    return result


def hardware() -> dict[str, Any]:
    """Return the cores and memory that this process may use, the processor, and the GPU if there is one."""
    import torch

    from xdub.tracking.provenance import device_name

    cores = len(os.sched_getaffinity(0))
    memory = memory_limit() / 1e9
    gpu = device_name(torch.device("cuda", 0)) if torch.cuda.is_available() else None
    return {
        "name": f"{cores} cores, {memory:.0f} GB, {gpu or 'no GPU'}",
        "cores": cores,
        "memory": f"{memory:.1f} GB",
        "processor": device_name(torch.device("cpu")),
        "gpu": gpu or "none",
    }


def memory_limit() -> int:
    """Return the machine's memory in bytes, or the control group's limit if that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(path).read_text().strip() if Path(path).is_file() else ""
        if text.isdigit():
            total = min(total, int(text))
    return total
