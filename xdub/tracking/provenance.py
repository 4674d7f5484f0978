"""Describe the code, machine and data of a run, so that a number can be traced to them years later."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import xdub
from xdub.data.manifest import Manifest

ROOT = Path(xdub.__file__).parents[1]
"""Folder of the checkout, if xdub runs from one."""
PACKAGES = ("torch", "deepspeed", "ray", "mlflow", "peft", "triton")
"""Packages whose versions are recorded."""


def code_version() -> dict[str, Any]:
    """Return the versions of this package and of those that decide its numbers, and the commit of a checkout."""
    versions: dict[str, Any] = {"xdub": xdub.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions | _checkout()


def _checkout() -> dict[str, Any]:
    """Return {commit, dirty}; {} for an installed package or without git."""
    if not (ROOT / ".git").exists():
        return {}
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def count_devices(names: Sequence[str]) -> str:
    """Count equal names: ``8 x NVIDIA A100-SXM4-80GB``; several kinds are joined by commas."""
    return ", ".join(f"{count} x {name}" for name, count in Counter(names).items())


def data_summary(manifest: Manifest) -> dict[str, Any]:
    """Return facts about a data set without its 10^5 ids.

    The digest covers the ids, and the shards' hashes cover the rows.
    """
    return {
        "folder": manifest.folder.full,
        "kind": manifest.kind,
        "digest": manifest.digest,
        "rows": len(manifest.ids),
        "frames": manifest.frames,
        "bytes": manifest.bytes,
        "recipe": manifest.recipe,
        "shards": [vars(shard) for shard in manifest.shards],
    }
