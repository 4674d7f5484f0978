"""Processes and ports of the servers and clusters that the benchmarks start."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection

import psutil


def free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def in_sessions(leaders: Collection[int]) -> list[psutil.Process]:
    """Return all processes of the sessions that these process ids lead, oldest first."""
    matching = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) in leaders:
                matching.append(process)
    return sorted(matching, key=lambda process: process.pid)
