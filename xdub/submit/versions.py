"""Versions that must be the same here and on the cluster: what one side writes, the other reads."""

from __future__ import annotations

import importlib.metadata
import platform

SUBMITTED = "XDUB_SUBMITTED"
"""Environment variable that holds the versions on the submitting machine, as JSON."""
EXACT = ("ray",)
MINOR = ("python", "torch", "deepspeed")
"""A patch release apart is fine."""


def versions() -> dict[str, str]:
    """Of this Python."""
    found = {"python": platform.python_version()}
    for package in (*EXACT, *MINOR[1:]):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "none"
    return found


def differences(here: dict[str, str], there: dict[str, str]) -> list[str]:
    """``torch 2.13.0 here, 2.11.0 there``, for every package that matters."""
    apart = [name for name in EXACT if _public(here.get(name)) != _public(there.get(name))]
    apart += [name for name in MINOR if _minor(here.get(name)) != _minor(there.get(name))]
    return [f"{name} {here.get(name)} here, {there.get(name)} there" for name in apart]


def _public(version: str | None) -> str:
    """Without the local part: 2.13.0+cpu and 2.13.0+cu130 are the same release."""
    return (version or "").partition("+")[0]


def _minor(version: str | None) -> list[str]:
    return _public(version).split(".")[:2]
