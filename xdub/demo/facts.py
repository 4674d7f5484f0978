"""On what and with what the demo ran."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "ray", "deepspeed", "mlflow", "numpy", "mediapipe", "moderngl", "av")


def versions() -> dict[str, str]:
    """Of ours and of what matters to the figures."""
    import xdub

    found = {"xdub": xdub.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Cores and memory that this process may use, and the GPU if there is one."""
    import torch

    cores = len(os.sched_getaffinity(0))
    memory = memory_limit() / 1e9
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "name": f"{cores} cores, {memory:.0f} GB, {gpu or 'no GPU'}",
        "cores": cores,
        "memory": f"{memory:.1f} GB",
        "processor": _processor(),
        "gpu": gpu or "none",
    }


def memory_limit() -> int:
    """Bytes: the machine's, or the control group's if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(path).read_text().strip() if Path(path).is_file() else ""
        if text.isdigit():
            total = min(total, int(text))
    return total


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
