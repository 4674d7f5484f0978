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
from typing import Any, Literal, Protocol

from xdub.files.atomic import write_text
from xdub.files.lines import LineFile, read_lines
from xdub.files.run_folder import StageFolder
from xdub.tracking.store import local_path

Sink = Callable[[list[dict[str, Any]]], None]
"""Delivers records or raises."""


class Target(Protocol):
    """Runs of a tracker that receive a journal."""

    @property
    def target(self) -> str:
        """Identifier of the runs, without blanks."""
        ...

    @property
    def created(self) -> bool:
        """True if the runs are new, so that they have no record yet."""
        ...


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
        """Append a file. It must stay in place until it is sent; a file below the stage's folder moves with it."""
        path, own = path.resolve(), self._path.parent.resolve()
        shown = path.relative_to(own) if path.is_relative_to(own) else path
        self._file.append({"kind": "artifact", "path": str(shown), "folder": folder, "to": to})

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
        # A sink of MLflow finds or creates its runs; the offset of other runs does not count for them.
        self._open: Callable[[int | None], Target] | None = getattr(sink, "open", None)
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
        return _size(self._path) - _offset(self._offset_file)[0]

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
            return self._send_next()

    def _send_next(self) -> bool:
        """Send the records of the next lines, at most a batch; return False at the end of the file."""
        if not self._path.is_file():
            return False
        target = self._open(_first_time(self._path)) if self._open else None
        offset = _valid_offset(self._offset_file, target)
        records, lines, end = [], 0, offset
        with self._path.open("rb") as file:
            file.seek(offset)
            while lines < self._batch:
                line = file.readline()
                if not line.endswith(b"\n"):
                    break
                lines, end = lines + 1, end + len(line)
                record = json.loads(line)
                if record["kind"] in self._kinds:
                    records.append(_located(record, self._path.parent))
        if not lines:
            return False
        if records:
            self._sink(records)
        write_text(self._offset_file, f"{end} {target.target}" if target else str(end))
        return True


def pending_bytes(folder: StageFolder, target: Target | None = None) -> int:
    """Return the number of bytes of a journal that its slowest lane has not sent, to ``target`` if one is passed."""
    offsets = [_valid_offset(folder.offset(lane), target) for lane in LANES]
    return _size(folder.journal) - min(offsets)


def _located(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a record with the present path of its file, because the stage's folder may have been moved."""
    if record["kind"] == "artifact":
        return record | {"path": str(_present(Path(record["path"]), folder))}
    if record["kind"] == "model" and record["source"].startswith("file:"):
        path = local_path(record["source"])
        assert path is not None, record["source"]
        return record | {"source": _present(path, folder).resolve().as_uri()}
    return record


def _present(path: Path, folder: Path) -> Path:
    """Return where a file of a stage is now; absolute paths of a folder that was moved keep the stage's name."""
    if path.is_absolute() and folder.name in path.parts:
        tail = path.parts[len(path.parts) - path.parts[::-1].index(folder.name) :]
        if (moved := folder.joinpath(*tail)).exists():
            return moved
    return folder / path


def _first_time(journal: Path) -> int | None:
    """Return the time of the first record, in ms since 1970, if the record has one."""
    record = next(read_lines(journal), {})
    return record.get("time_ms")


def _valid_offset(file: Path, target: Target | None) -> int:
    """Return the number of bytes that were sent to ``target``, or to any target if there is none to compare with."""
    end, runs = _offset(file)
    if target is None:
        return end
    # An offset of an earlier version does not record its runs; it counts unless the runs are new.
    return 0 if runs != target.target and (runs or target.created) else end


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _offset(file: Path) -> tuple[int, str]:
    """Return the number of bytes that were sent, and the runs that received them ("" where that is not recorded)."""
    end, _, runs = (file.read_text("utf-8") if file.is_file() else "0").partition(" ")
    return int(end), runs


def _now() -> int:
    return int(time.time() * 1000)
