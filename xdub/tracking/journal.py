"""Journal of a stage: the loop appends records to a file, and threads of the driver send them to the tracker.

A tracker that is down, slow or killed delays no step and loses no record, because sending continues from a recorded
offset: at once, after a restart, or when the driver flushes. A sink must accept a record twice. Numbers and files have
lanes of their own, so an upload that fails or takes long delays no number.

    {"kind": "metrics", "step", "time_ms", "values"}          from the loop
    {"kind": "artifact", "path", "folder"}                    a file that stays in place until it is sent
    {"kind": "params" | "tags", "values"}                     recipe, code, data, machines
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
from xdub.files.run_folder import StageFolder

Sink = Callable[[list[dict[str, Any]]], None]
"""Delivers records or raises."""

LANES = {"numbers": ("metrics", "params", "tags", "status"), "files": ("artifact", "model")}
"""Kinds of records that are sent together, in order."""

BATCH = 200
"""Largest number of lines that are sent in one call."""
RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0)
"""Pauses after one, two, ... failures in a row."""
_SENDING: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
"""One lock for each lane of each journal, because an abandoned sender may still wait for its tracker."""


class Journal:
    """Writer of a stage's journal. The first record of a step is kept, so a replayed step adds none."""

    def __init__(self, folder: StageFolder) -> None:
        self._path = folder.journal
        self.last_step = max(
            (r["step"] for r in read_lines(self._path) if r["kind"] == "metrics"), default=-1
        )
        """Newest step with metrics; metrics of this step and of earlier ones are ignored."""
        self._file = LineFile(self._path)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Append the loop's metrics of a step, unless the journal has metrics of that step or a later one."""
        if step > self.last_step:
            self.last_step = step
            self.evaluation(step, values)

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Append metrics that were measured later with the weights of a step."""
        self._file.append({"kind": "metrics", "step": step, "time_ms": _now(), "values": values})

    def artifact(self, path: Path, folder: str, *, to: Literal["phase", "parent"] = "phase") -> None:
        """Append a file; ``path`` must stay in place until it is sent."""
        self._file.append({"kind": "artifact", "path": str(path.resolve()), "folder": folder, "to": to})

    def params(self, values: dict[str, Any], *, to: Literal["phase", "parent"] = "phase") -> None:
        """Append params: nested plain values."""
        self._file.append({"kind": "params", "values": values, "to": to})

    def tags(self, values: dict[str, str]) -> None:
        """Append tags of the stage's run."""
        self._file.append({"kind": "tags", "values": values})

    def status(self, value: Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]) -> None:
        """Append the status of the stage's run."""
        self._file.append({"kind": "status", "value": value, "time_ms": _now()})

    def model(self, name: str, source: str, *, params: dict[str, Any], tags: dict[str, str]) -> None:
        """Append weights at the address ``source``, once, however often a phase is finished."""
        record = {"kind": "model", "name": name, "source": source, "params": params, "tags": tags}
        if all(earlier != record for earlier in read_lines(self._path)):
            self._file.append(record)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Shipper:
    """Sender of one lane of a stage's journal."""

    def __init__(
        self, folder: StageFolder, sink: Sink, lane: str = "numbers", *, poll_seconds: float = 1.0
    ) -> None:
        self._path, self._sink, self._poll = folder.journal, sink, poll_seconds
        self._kinds, self._offset_file = LANES[lane], folder.offset(lane)
        self._offset = _offset(self._offset_file)
        self._batch = BATCH
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"tracking-{lane}", daemon=True)
        self.tried = threading.Event()
        """Set after the first call of the tracker, whether it failed or not."""
        self.last_error: str | None = None
        """Failure of the latest call; None after a success."""

    def start(self) -> Shipper:
        """Send in the background until :meth:`close`."""
        self._thread.start()
        return self

    def close(self, timeout: float) -> int:
        """Send the rest for at most ``timeout`` seconds; return the number of bytes that were not sent."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(max(timeout, 0.0))
        return _size(self._path) - _offset(self._offset_file)

    def flush(self) -> None:
        """Send everything now, in this thread, and raise the sink's exceptions."""
        while self._send_batch():
            pass

    def _run(self) -> None:
        failures = 0
        while True:
            stopping = self._stop.is_set()
            try:
                sent, failures, self.last_error = self._send_batch(), 0, None
                self._batch = min(BATCH, 2 * self._batch)
            # No failure of the tracker may stop training; the records stay in the journal.
            except Exception as error:
                self.last_error = f"{type(error).__name__}: {error}"
                self.tried.set()
                # A slow server may manage fewer records in one call.
                self._batch = max(1, self._batch // 2)
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

    def _send_batch(self) -> bool:
        with _SENDING[self._offset_file.resolve()]:
            self._offset = _offset(self._offset_file)
            return self._send_next()

    def _send_next(self) -> bool:
        """Send the records of the next lines, at most a batch; return False at the end of the file."""
        if not self._path.is_file():
            return False
        records, lines, end = [], 0, self._offset
        with self._path.open("rb") as file:
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


def pending_bytes(folder: StageFolder) -> int:
    """Return the number of bytes of a journal that its slowest lane has not sent."""
    return _size(folder.journal) - min(_offset(folder.offset(lane)) for lane in LANES)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _offset(file: Path) -> int:
    return int(file.read_text()) if file.is_file() else 0


def _now() -> int:
    return int(time.time() * 1000)
