"""Processes and ports of what is started here to be measured, watched and killed."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection

import psutil


def free_port() -> int:
    """Of loopback, free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def in_sessions(leaders: Collection[int]) -> list[psutil.Process]:
    """All processes of the sessions that these process ids lead, oldest first."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) in leaders:
                found.append(process)
    return sorted(found, key=lambda process: process.pid)
