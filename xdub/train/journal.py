"""Metrics on their way to the tracker: the loop appends to a file, a daemon thread sends what it finds there.

The file is the truth. A tracker that is down, slow or killed costs the loop nothing and loses nothing: sending
starts again from a remembered offset, now, after a restart, or when the driver flushes. Sending a record twice must
do no harm.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xdub.train.records import LineFile, read_lines, write_atomic

Sink = Callable[[list[dict[str, Any]]], None]
"""Delivers records or raises; called from one thread at a time."""

BATCH = 200
RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0)


class Journal:
    """The writing end, on rank 0. The first record of a step stays: a replayed step is not journalled again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_step = max((r["step"] for r in read_lines(path) if r["kind"] == "metrics"), default=-1)
        self._file = LineFile(path)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        if step > self.last_step:
            self.last_step = step
            record = {"kind": "metrics", "step": step, "time_ms": int(time.time() * 1000), "values": values}
            self._file.append(record)

    def artifact(self, path: Path, folder: str) -> None:
        """``path`` must stay where it is until it is sent."""
        self._file.append({"kind": "artifact", "path": str(path), "folder": folder})

    def close(self) -> None:
        self._file.close()


class Shipper:
    """The sending end."""

    def __init__(self, path: Path, sink: Sink, *, poll_seconds: float = 1.0) -> None:
        self.path, self._sink, self._poll = path, sink, poll_seconds
        self._offset_file = path.with_suffix(".offset")
        self._offset = _offset(path)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.last_error: str | None = None

    def start(self) -> Shipper:
        """Send in the background until :meth:`close`."""
        self._thread = threading.Thread(target=self._run, name="tracking-shipper", daemon=True)
        self._thread.start()
        return self

    def close(self, timeout: float) -> int:
        """Send what is left for at most ``timeout`` seconds; the number of bytes that stay for a later start."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)
        return pending_bytes(self.path)

    def flush(self) -> None:
        """Send everything now, in this thread; raises what the sink raises."""
        while self._send_some():
            pass

    def _run(self) -> None:
        failures = 0
        while True:
            stopping = self._stop.is_set()
            try:
                sent, failures = self._send_some(), 0
            except Exception as error:  # whatever the tracker does, training goes on and the records stay
                self.last_error = f"{type(error).__name__}: {error}"
                sent = False
                wait = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                failures += 1
                if self._stop.wait(wait):
                    if stopping:
                        return
                    continue
            if sent:
                continue
            if stopping:
                return
            self._stop.wait(self._poll)

    def _send_some(self) -> bool:
        """Send up to BATCH records; False when there was nothing."""
        if not self.path.is_file():
            return False
        records, end = [], self._offset
        with self.path.open("rb") as file:
            file.seek(self._offset)
            while len(records) < BATCH:
                line = file.readline()
                if not line.endswith(b"\n"):
                    break
                records.append(json.loads(line))
                end += len(line)
        if not records:
            return False
        self._sink(records)
        self._offset = end
        write_atomic(self._offset_file, str(end))
        return True


def pending_bytes(path: Path) -> int:
    """How much of a journal was not sent."""
    return (path.stat().st_size if path.is_file() else 0) - _offset(path)


def _offset(path: Path) -> int:
    file = path.with_suffix(".offset")
    return int(file.read_text()) if file.is_file() else 0
