"""Checkpoints and exports on their way to another file system, beside the training: a daemon thread of rank 0.

All ranks write one run folder (a disk, or a file system that their machines share), so rank 0 sees every shard and
needs no help. A step never waits: handing over is a note in memory, and whatever the other side does (fails, hangs, is
away for hours) is this thread's alone. It tries again, and when newer work comes meanwhile, takes that: at most one
folder of a kind is under way and one waits. Layout and wholeness are `xdub.train.remote.store`'s, the way back is
`xdub.train.remote.restore`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xdub.data.manifest import file_sha256
from xdub.train.remote.store import CHECKPOINTS, CHUNK, EXPORTS, MANIFEST, Remote, first_line, shown

RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)
HELD = ".uploading-"


class Gone(Exception):
    """The local folder is no longer what was to be uploaded: removed by retention, or damaged."""


@dataclass(kw_only=True)
class _Job:
    """A folder to upload."""

    kind: str
    folder: Path
    since: float = field(default_factory=time.monotonic)
    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What has arrived; kept over retries."""


class Uploads:
    """The sending end. Use on rank 0 alone."""

    def __init__(self, uri: str, phase: str, *, keep: int = 2) -> None:
        """``keep`` whole folders of a kind stay at URI/<phase>."""
        self.uri, self.phase, self.keep = uri, phase, keep
        self.errors: dict[str, str] = {}
        """Why the latest folder of a kind is not whole on the other side; empty while all goes well."""
        self.uploaded = {CHECKPOINTS: -1, EXPORTS: -1}
        """Newest step of each kind that is whole on the other side."""
        self.dropped = 0
        """Folders that newer ones overtook."""
        self._remote: Remote | None = None
        self._records: list[Path] = []
        self._waiting: dict[str, _Job] = {}
        self._current: _Job | None = None
        self._closing = self._abandoned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)

    def start(self) -> Uploads:
        """Upload in the background until :meth:`close`."""
        self._thread.start()
        return self

    def records(self, paths: Sequence[Path]) -> None:
        """Small files of the run that go with every folder from now on, as they are at that time.

        They must be in RUN or RUN/<phase>; missing ones are left out. `restore` brings them back. A run needs:
        RUN/run_state.json and RUN/<phase>/{steps.jsonl, journal.jsonl, recipe.json, result.json, quarantine.jsonl}.
        """
        self._records = list(paths)

    def checkpoint(self, folder: Path) -> None:
        """Hand over a committed checkpoint RUN/<phase>/checkpoints/step...; returns at once."""
        self._hand_over(_Job(kind=CHECKPOINTS, folder=folder))

    def export(self, folder: Path) -> None:
        """Hand over RUN/<phase>/export; returns at once. Write result.json first: it goes with it."""
        self._hand_over(_Job(kind=EXPORTS, folder=folder))

    @property
    def last_error(self) -> str | None:
        return next(iter(self.errors.values()), None)

    @property
    def lag(self) -> float:
        """Seconds that the other side has been behind; 0 when it has all that was handed over."""
        with self._changed:
            jobs = [*self._waiting.values(), *([self._current] if self._current else [])]
            return time.monotonic() - min(job.since for job in jobs) if jobs else 0.0

    def close(self, timeout: float) -> str | None:
        """Upload what is left for at most ``timeout`` seconds; one line about what stays undone, or None."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            self._abandoned = True
            jobs = [*([self._current] if self._current else []), *self._waiting.values()]
            self._changed.notify_all()
        undone = {job.kind: str(job.folder) for job in jobs} | self.errors
        if not undone:
            return None
        reason = self.last_error or f"not done within {timeout:.0f} s"
        return f"not uploaded to {shown(self.uri)}: {', '.join(sorted(undone))} of {self.phase} ({reason})"

    def _hand_over(self, job: _Job) -> None:
        with self._changed:
            if overtaken := self._waiting.get(job.kind):
                self.dropped += 1
                job.since = overtaken.since
            self._waiting[job.kind] = job
            self._changed.notify_all()

    def _run(self) -> None:
        failures = 0
        while (job := self._next()) is not None:
            try:
                self._upload(job)
                failures = 0
                self.errors.pop(job.kind, None)
            except Gone as error:
                self.errors[job.kind] = str(error)
                self.dropped += 1
            except Exception as error:  # whatever the other side does, training goes on
                self.errors[job.kind] = first_line(error)
                self._remote = None  # made anew: credentials and connections age
                wait = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                failures += 1
                self._again(job, wait)
            with self._changed:
                self._current = None

    def _next(self) -> _Job | None:
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            if self._abandoned or not self._waiting:
                return None
            kind = min(self._waiting, key=lambda kind: self._waiting[kind].since)
            self._current = self._waiting.pop(kind)
            return self._current

    def _again(self, job: _Job, wait: float) -> None:
        """Back into the queue after a rest, unless a newer folder of its kind came."""
        with self._changed:
            if newer := self._waiting.get(job.kind):
                self.dropped += 1
                newer.since = job.since
            else:
                self._waiting[job.kind] = job
            self._current = None
            self._changed.wait_for(lambda: self._abandoned, min(wait, 1.0) if self._closing else wait)

    def _upload(self, job: _Job) -> None:
        self._remote = remote = self._remote or Remote(self.uri, self.phase)
        held = _hold(job.folder)
        try:
            files, step = _contents(job.kind, held)
            name = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
            target = f"{remote.root}/{job.kind}/step{step:08d}-{name}"
            copies = remote.copies(job.kind)
            if target not in [copy.path for copy in copies]:
                self._send(remote, job, held, files, target)
                number = 1 + max((copy.number for copy in copies), default=0)
                manifest = {"number": number, "step": step, "time": time.time(), "files": job.sent}
                remote.write(f"{target}/{MANIFEST}", iter([json.dumps(manifest, indent=1).encode()]))
            self.uploaded[job.kind] = step
            self._forget_old(remote, job.kind, target)
        finally:
            if held != job.folder:
                shutil.rmtree(held, ignore_errors=True)

    def _send(
        self, remote: Remote, job: _Job, folder: Path, files: dict[str, dict[str, Any]], target: str
    ) -> None:
        for name, wanted in files.items():
            if f"files/{name}" in job.sent:
                continue
            told = remote.write(f"{target}/files/{name}", _pieces(folder / name))
            if told != wanted:
                raise Gone(f"{job.folder / name}: differs from its manifest, not uploaded")
            job.sent[f"files/{name}"] = told
        run = job.folder.parent.parent if job.kind == EXPORTS else job.folder.parent.parent.parent
        for path in self._records:
            name = f"records/{path.resolve().relative_to(run.resolve()).as_posix()}"
            if path.is_file() and name not in job.sent:
                # Read to its present end: it may grow meanwhile, and it holds at least this checkpoint's steps.
                job.sent[name] = remote.write(f"{target}/{name}", _pieces(path, path.stat().st_size))

    def _forget_old(self, remote: Remote, kind: str, newest: str) -> None:
        """Only after ``newest`` is whole: older copies beyond ``keep``, and what was never finished."""
        kept = [copy.path for copy in remote.copies(kind)][: self.keep]
        for folder in remote.folders(kind):
            if folder not in kept and folder != newest:
                remote.remove(folder)


def _contents(kind: str, folder: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Files of a local folder with size and hash, and its step."""
    try:
        if kind == EXPORTS:
            names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
            files = {name: _describe(folder / name) for name in names}
            return files, int(json.loads((folder / "config.json").read_text("utf-8")).get("step", 0))
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        return manifest["files"] | {MANIFEST: _describe(folder / MANIFEST)}, int(manifest["step"])
    except (OSError, ValueError, KeyError) as error:
        raise Gone(f"{folder}: cannot be read any more ({first_line(error)})") from error


def _describe(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _pieces(path: Path, size: int | None = None) -> Iterator[bytes]:
    """A local file, or its first ``size`` bytes, in pieces."""
    try:
        with path.open("rb") as file:
            left = path.stat().st_size if size is None else size
            while left and (piece := file.read(min(CHUNK, left))):
                left -= len(piece)
                yield piece
    except OSError as error:
        raise Gone(f"{path}: cannot be read any more ({first_line(error)})") from error


def _hold(folder: Path) -> Path:
    """The folder's files under a second name, as hard links: local retention cannot take them away under way.

    Where the file system has no hard links, the folder itself: then a slow upload may lose the race, and says so.
    """
    for left in folder.parent.glob(f"{HELD}*"):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    held = folder.with_name(HELD + folder.name)
    try:
        shutil.copytree(folder, held, copy_function=os.link)
    except OSError:
        shutil.rmtree(held, ignore_errors=True)
        return folder
    return held
