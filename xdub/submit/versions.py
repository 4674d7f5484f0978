"""Versions that must agree between the submitting machine and the cluster, because each reads data of the other."""

from __future__ import annotations

import importlib.metadata
import platform

SUBMITTED = "XDUB_SUBMITTED"
"""Environment variable that holds the versions on the submitting machine, as JSON."""
EXACT = ("ray",)
"""Packages whose whole version must agree."""
MINOR = ("python", "torch", "deepspeed")
"""Packages whose patch release may differ."""


def versions() -> dict[str, str]:
    """Return the versions in this Python environment; ``none`` for a package that is not installed."""
    installed = {"python": platform.python_version()}
    for package in (*EXACT, *MINOR[1:]):
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "none"
    return installed


def differences(submitted: dict[str, str], cluster: dict[str, str]) -> list[str]:
    """Return a text such as ``torch 2.13.0 here, 2.11.0 there`` for every package whose versions do not agree.

    ``here`` is the machine that submits; ``there`` is the cluster.
    """
    names = [name for name in EXACT if _public(submitted.get(name)) != _public(cluster.get(name))]
    names += [name for name in MINOR if _minor(submitted.get(name)) != _minor(cluster.get(name))]
    return [f"{name} {submitted.get(name)} here, {cluster.get(name)} there" for name in names]


def _public(version: str | None) -> str:
    """Drop the local part: 2.13.0+cpu and 2.13.0+cu130 are the same release."""
    return (version or "").partition("+")[0]


def _minor(version: str | None) -> list[str]:
    return _public(version).split(".")[:2]
