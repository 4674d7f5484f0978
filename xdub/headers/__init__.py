"""Facts about the files of third-party networks, read from headers and configurations in seconds."""

from __future__ import annotations

from xdub.headers.check import Finding, check_networks, inspect_networks

__all__ = ["Finding", "check_networks", "inspect_networks"]
