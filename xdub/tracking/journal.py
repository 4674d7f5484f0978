"""Everything for the tracker goes through a file: the loop appends, threads of the driver send what they find there.

The file is the truth. A tracker that is down, slow or killed costs the loop nothing and loses nothing: sending
starts again from a remembered offset, now, after a restart, or when the driver flushes. Sending a record twice must
do no harm. Numbers and files travel in lanes of their own, so that an upload that fails or takes long delays no number.

    {"kind": "metrics", "step", "time_ms", "values"}          the loop
    {"kind": "artifact", "path", "folder"}                    a file that stays where it is until it is sent
    {"kind": "params" | "tags", "values"}                     what a run was made of
    {"kind": "status", "value", "time_ms"}                    RUNNING, FINISHED, FAILED or KILLED
    {"kind": "model", "name", "source", "params", "tags"}     weights for the registry, by their address

Params and artefacts marked ``"to": "parent"`` belong to the run above the phases.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from xdub.files.atomic import write_text
from xdub.files.lines import LineFile, read_lines

Sink = Callable[[list[dict[str, Any]]], None]
"""Delivers records or raises."""

LANES = {"numbers": ("metrics", "params", "tags", "status"), "files": ("artifact", "model")}
"""Kinds of records that are sent together, in order."""

BATCH = 200
"""Lines sent at once, at most."""
RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0)
_SENDING: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
"""One sender at a time for each lane of each journal: one that was given up may still wait for its tracker."""


class Journal:
    """The writing end. The first record of a step stays: a replayed step is not journalled again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_step = max((r["step"] for r in read_lines(path) if r["kind"] == "metrics"), default=-1)
        self._file = LineFile(path)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """What the loop saw at a step."""
        if step > self.last_step:
            self.last_step = step
            self.evaluation(step, values)

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """What was measured later with the weights of a step."""
        self._file.append({"kind": "metrics", "step": step, "time_ms": _now(), "values": values})

    def artifact(self, path: Path, folder: str, *, to: Literal["phase", "parent"] = "phase") -> None:
        """``path`` must stay where it is until it is sent."""
        self._file.append({"kind": "artifact", "path": str(path.resolve()), "folder": folder, "to": to})

    def params(self, values: dict[str, Any], *, to: Literal["phase", "parent"] = "phase") -> None:
        """Nested plain values."""
        self._file.append({"kind": "params", "values": values, "to": to})

    def tags(self, values: dict[str, str]) -> None:
        self._file.append({"kind": "tags", "values": values})

    def status(self, value: Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]) -> None:
        self._file.append({"kind": "status", "value": value, "time_ms": _now()})

    def model(self, name: str, source: str, *, params: dict[str, Any], tags: dict[str, str]) -> None:
        """Weights at the address ``source``. The same ones are journalled once, however often a phase is finished."""
        record = {"kind": "model", "name": name, "source": source, "params": params, "tags": tags}
        if all(known != record for known in read_lines(self.path)):
            self._file.append(record)

    def close(self) -> None:
        self._file.close()


class Shipper:
    """The sending end of one lane."""

    def __init__(self, path: Path, sink: Sink, lane: str = "numbers", *, poll_seconds: float = 1.0) -> None:
        self.path, self._sink, self._poll = path, sink, poll_seconds
        self._kinds, self._offset_file = LANES[lane], _offset_file(path, lane)
        self._offset = _offset(self._offset_file)
        self._batch = BATCH
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"tracking-{lane}", daemon=True)
        self.tried = threading.Event()
        """Set once the tracker has taken or refused something."""
        self.last_error: str | None = None
        """Of the last attempt."""

    def start(self) -> Shipper:
        """Send in the background until :meth:`close`."""
        self._thread.start()
        return self

    def close(self, timeout: float) -> int:
        """Send what is left for at most ``timeout`` seconds; the number of bytes that stay for a later start."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(max(timeout, 0.0))
        return _size(self.path) - _offset(self._offset_file)

    def flush(self) -> None:
        """Send everything now, in this thread; raises what the sink raises."""
        while self._send_some():
            pass

    def _run(self) -> None:
        failures = 0
        while True:
            stopping = self._stop.is_set()
            try:
                sent, failures, self.last_error = self._send_some(), 0, None
                self._batch = min(BATCH, 2 * self._batch)
            except Exception as error:  # whatever the tracker does, training goes on and the records stay
                self.last_error = f"{type(error).__name__}: {error}"
                self.tried.set()
                self._batch = max(1, self._batch // 2)  # a server that is slow may manage less at a time
                if stopping:
                    return
                self._stop.wait(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
                continue
            if sent:
                self.tried.set()
            elif stopping:
                return
            else:
                self._stop.wait(self._poll)

    def _send_some(self) -> bool:
        with _SENDING[self._offset_file.resolve()]:
            self._offset = _offset(self._offset_file)
            return self._send_next()

    def _send_next(self) -> bool:
        """Send at most a batch of lines' worth of records; False at the end of the file."""
        if not self.path.is_file():
            return False
        records, lines, end = [], 0, self._offset
        with self.path.open("rb") as file:
            file.seek(self._offset)
            while lines < self._batch:
                line = file.readline()
                if not line.endswith(b"\n"):
                    break
                lines, end = lines + 1, end + len(line)
                record = json.loads(line)
                if record["kind"] in self._kinds:
                    records.append(record)
        if not lines:
            return False
        if records:
            self._sink(records)
        self._offset = end
        write_text(self._offset_file, str(end))
        return True


def pending_bytes(path: Path) -> int:
    """How much of a journal was not sent, by the lane that is farthest behind."""
    return _size(path) - min(_offset(_offset_file(path, lane)) for lane in LANES)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _offset_file(path: Path, lane: str) -> Path:
    return path.with_suffix(f".{lane}.offset")


def _offset(file: Path) -> int:
    return int(file.read_text()) if file.is_file() else 0


def _now() -> int:
    return int(time.time() * 1000)
