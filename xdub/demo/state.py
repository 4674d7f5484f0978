"""The record of a demo, OUT/demo.json: its flags, its finished stages and their times. It makes the demo restartable.

A stage is done once its entry is marked done, which happens after all files of the stage are written. Time is recorded
while a stage runs, so killed attempts count, too.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xdub.errors import UserError
from xdub.files.atomic import write_json
from xdub.files.lock import exclusive

FILE = "demo.json"
"""Name of the record in OUT."""


class DemoState:
    """The record of one demo folder; every change is on disk before the call returns."""

    def __init__(self, out: Path, record: dict[str, Any]) -> None:
        self.out, self.record = out, record
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def open(cls, out: Path, *, flags: Mapping[str, Any], plan: Mapping[str, Any]) -> Iterator[DemoState]:
        """Begin in an empty or new folder, or continue the demo that began there with the same flags.

        Raises:
            UserError: the folder holds something else, a demo with other flags, a damaged record, or a running demo.
        """
        out = Path(out)
        _refuse_foreign(out)
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / ".lock").touch()
        except OSError as error:
            raise UserError(
                f"--out {out}: cannot write there ({error.strerror}); choose another folder"
            ) from error
        busy = f"--out {out}: a demo is running there; wait for it or choose another folder"
        with exclusive(out / ".lock", busy=busy):
            yield cls(out, _begin(out, flags, plan))

    @property
    def plan(self) -> dict[str, Any]:
        """Sizes and steps that the demo began with."""
        return self.record["plan"]

    def done(self, stage: str) -> bool:
        """Return whether a stage is finished."""
        return bool(self.record["stages"].get(stage, {}).get("done"))

    def result(self, stage: str) -> dict[str, Any]:
        """Return the values that a finished stage returned."""
        return self.record["stages"][stage]["result"]

    def seconds(self) -> dict[str, float]:
        """Return the wall time of every stage so far, all attempts together."""
        return {name: entry["seconds"] for name, entry in self.record["stages"].items()}

    @contextmanager
    def running(self, stage: str, beat: float = 2.0) -> Iterator[None]:
        """Count the time of a stage, and record it every ``beat`` seconds."""
        entry = self.record["stages"].setdefault(stage, {"seconds": 0.0, "done": False, "result": {}})
        before, start, stop = entry["seconds"], time.monotonic(), threading.Event()

        def note() -> None:
            with self._lock:
                entry["seconds"] = round(before + time.monotonic() - start, 2)
                self._write()

        def keep_noting() -> None:
            while not stop.wait(beat):
                note()

        thread = threading.Thread(target=keep_noting, daemon=True, name="stage clock")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            note()

    def finish(self, stage: str, result: Mapping[str, Any] | None) -> None:
        """Mark a stage as done and record the values that it returned."""
        with self._lock:
            self.record["stages"][stage] |= {"done": True, "result": dict(result or {})}
            self._write()

    def note(self, **values: Any) -> None:
        """Record values beside the stages, e.g. the memory peak."""
        with self._lock:
            self.record.update(values)
            self._write()

    def _write(self) -> None:
        write_json(self.out / FILE, self.record)


def _refuse_foreign(out: Path) -> None:
    """Raise UserError if a folder without a record holds other files; not even a lock is written into it."""
    if not out.is_dir() or (out / FILE).is_file():
        return
    others = sorted(p.name for p in out.iterdir() if not p.name.startswith("."))
    if others:
        raise UserError(
            f"--out {out}: it holds other files ({', '.join(others[:3])}); choose an empty or new folder"
        )


def _begin(out: Path, flags: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    path = out / FILE
    if not path.is_file():
        record = {"flags": dict(flags), "plan": dict(plan), "stages": {}}
        write_json(path, record)
        return record
    try:
        record = json.loads(path.read_text("utf-8"))
        began, _ = record["flags"], record["stages"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; delete the folder {out} and start again") from error
    if began != dict(flags):
        keys = [key for key in sorted({*began, *flags}) if began.get(key) != flags.get(key)]
        changed = [f"{key}={began.get(key)} (now {flags.get(key)})" for key in keys]
        raise UserError(
            f"--out {out}: this demo began with {', '.join(changed)}; continue with the same flags, "
            "or choose another folder"
        )
    return record
