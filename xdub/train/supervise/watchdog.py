"""End a rank that hangs, so that the run continues without an operator.

A collective waits for a stopped partner without end, or for half an hour. Every rank watches its own progress from a
thread. After too long without progress it writes the stacks of all its threads to a file and exits; the supervisor sees
a lost worker and restarts from the last checkpoint.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from pathlib import Path

EXIT_CODE = 75
"""EX_TEMPFAIL: a retry may help."""
START_FACTOR = 3
"""Factor by which the first step may take longer, because it includes loading, compiling and the first batch."""


class Watchdog:
    """Context manager that ends the process when :meth:`beat` was not called for ``seconds``."""

    def __init__(self, seconds: float, report: Path) -> None:
        """Watch with a limit of ``seconds``; ``report`` is the file for the stacks of all threads."""
        self._seconds, self._report = seconds, report
        self._deadline = time.monotonic() + START_FACTOR * seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self) -> None:
        """Record progress, which restarts the time limit."""
        self._deadline = time.monotonic() + self._seconds

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _watch(self) -> None:
        """End the process at the deadline; runs in a thread."""
        while not self._done.wait(min(1.0, self._seconds / 10)):
            if time.monotonic() > self._deadline:
                with self._report.open("w") as file:
                    print(f"no progress for {self._seconds:g} s (train.hang_seconds)", file=file, flush=True)
                    faulthandler.dump_traceback(file, all_threads=True)
                os._exit(EXIT_CODE)
