"""A rank that hangs ends itself, so that the run goes on without anybody looking.

A collective whose partner has stopped waits for ever, or for half an hour. Every rank watches its own progress from a
thread. When there was none for too long it writes where each of its threads stands, and leaves; the launcher sees a
lost worker and starts again from the last checkpoint.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from pathlib import Path

EXIT_CODE = 75
"""EX_TEMPFAIL: trying again may help."""
START_FACTOR = 3
"""What comes before the first step (loading, compiling, the first batch) may take so many times longer."""


class Watchdog:
    """Ends the process when :meth:`beat` was not called for ``seconds``; use as a context manager."""

    def __init__(self, seconds: float, report: Path) -> None:
        """``report``: file for the stacks of all threads."""
        self._seconds, self._report = seconds, report
        self._deadline = time.monotonic() + START_FACTOR * seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self) -> None:
        """Something has been achieved."""
        self._deadline = time.monotonic() + self._seconds

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self._seconds / 10)):
            if time.monotonic() > self._deadline:
                with self._report.open("w") as file:
                    print(f"no progress for {self._seconds:g} s (train.hang_seconds)", file=file, flush=True)
                    faulthandler.dump_traceback(file, all_threads=True)
                os._exit(EXIT_CODE)
