"""Uploads of checkpoints and exports to another file system, by a daemon thread of rank 0.

All ranks write one run folder (a disk, or a file system that their machines share), so rank 0 sees every shard.
Training never blocks on an upload: enqueueing only stores a path, and a remote that fails, hangs or is down for hours
affects only this thread. The thread retries; a newer folder replaces an older one of its kind that waits, so at most
one folder of a kind is being sent and one waits. `xdub.train.remote.store` defines the layout, and
`xdub.train.remote.restore` is the inverse.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from xdub.files.run_folder import PhaseFolder
from xdub.files.uris import first_line, shown
from xdub.train.remote.store import CHECKPOINTS, CHUNK, EXPORTS, MANIFEST, Remote
from xdub.train.state.checkpoint import Files, checkpoint_files
from xdub.train.state.export import export_files

RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Pauses after one, two, ... failures in a row."""
HELD = ".uploading-"
"""Prefix of the folder of hard links that is being sent."""


class FolderLost(Exception):
    """Error raised when the local folder was removed by retention, or is damaged."""


@dataclass(kw_only=True)
class _Job:
    """A folder to upload."""

    kind: str
    folder: Path
    since: float = field(default_factory=time.monotonic)
    sent: Files = field(default_factory=dict)
    """Files that the remote has received; kept across retries."""


class Uploads:
    """Sender of one phase's checkpoints and exports. Use on rank 0 alone."""

    def __init__(self, uri: str, folder: PhaseFolder, *, keep: int = 2) -> None:
        """``keep`` whole folders of a kind stay at URI/<phase>."""
        self.uri, self.folder, self.keep = uri, folder, keep
        self.records = folder.records
        """Small files that are uploaded with every folder, in their state at that time; missing files are skipped."""
        self.errors: dict[str, str] = {}
        """Kind -> reason why its latest folder is not whole on the remote; empty without a problem."""
        self.uploaded = {CHECKPOINTS: -1, EXPORTS: -1}
        """Newest step of each kind that is whole on the remote."""
        self.dropped = 0
        """Number of folders that were replaced by newer ones, or that vanished, before they were sent."""
        self._remote: Remote | None = None
        self._waiting: dict[str, _Job] = {}
        self._current: _Job | None = None
        self._closing = self._abandoned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)

    def start(self) -> Uploads:
        """Upload in the background until :meth:`close`."""
        self._thread.start()
        return self

    def checkpoint(self, folder: Path) -> None:
        """Enqueue a committed checkpoint of the phase; return at once."""
        self._enqueue(_Job(kind=CHECKPOINTS, folder=folder))

    def export(self, folder: Path) -> None:
        """Enqueue the exported weights; return at once. The result is uploaded with them, so write the result first."""
        self._enqueue(_Job(kind=EXPORTS, folder=folder))

    @property
    def last_error(self) -> str | None:
        """Reason why something is not on the remote, or None."""
        return next(iter(self.errors.values()), None)

    @property
    def lag(self) -> float:
        """Seconds for which the remote has lacked an enqueued folder; 0 when it has all of them."""
        with self._changed:
            jobs = [*self._waiting.values(), *([self._current] if self._current else [])]
            return time.monotonic() - min(job.since for job in jobs) if jobs else 0.0

    def close(self, timeout: float) -> str | None:
        """Upload the rest for at most ``timeout`` seconds; return one line about unfinished uploads, or None."""
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
        return f"not uploaded to {shown(self.uri)}: {', '.join(sorted(undone))} of {self.folder.phase} ({reason})"

    def _enqueue(self, job: _Job) -> None:
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
            except FolderLost as error:
                self.errors[job.kind] = str(error)
                self.dropped += 1
            # No failure of the remote may stop training.
            except Exception as error:
                self.errors[job.kind] = first_line(error)
                # Credentials and connections expire, so the next try opens a new connection.
                self._remote = None
                wait = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                failures += 1
                self._requeue(job, wait)
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

    def _requeue(self, job: _Job, wait: float) -> None:
        """Enqueue a failed job again unless a newer folder of its kind waits, and pause."""
        with self._changed:
            if newer := self._waiting.get(job.kind):
                self.dropped += 1
                newer.since = job.since
            else:
                self._waiting[job.kind] = job
            self._current = None
            self._changed.wait_for(lambda: self._abandoned, min(wait, 1.0) if self._closing else wait)

    def _upload(self, job: _Job) -> None:
        self._remote = remote = self._remote or Remote(self.uri, self.folder.phase)
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
            self._remove_old(remote, job.kind, target)
        finally:
            if held != job.folder:
                shutil.rmtree(held, ignore_errors=True)

    def _send(self, remote: Remote, job: _Job, held: Path, files: Files, target: str) -> None:
        for name, expected in files.items():
            if f"files/{name}" in job.sent:
                continue
            written = remote.write(f"{target}/files/{name}", _pieces(held / name))
            if written != expected:
                raise FolderLost(f"{job.folder / name}: differs from its manifest, not uploaded")
            job.sent[f"files/{name}"] = written
        run = self.folder.run.path.resolve()
        for path in self.records:
            name = f"records/{path.resolve().relative_to(run).as_posix()}"
            if path.is_file() and name not in job.sent:
                # Only the present bytes are sent: the file may grow, and it has at least this checkpoint's steps.
                job.sent[name] = remote.write(f"{target}/{name}", _pieces(path, path.stat().st_size))

    def _remove_old(self, remote: Remote, kind: str, newest: str) -> None:
        """Remove older copies beyond ``keep`` and unfinished ones; call it only when ``newest`` is whole."""
        kept = [copy.path for copy in remote.copies(kind)][: self.keep]
        for folder in remote.folders(kind):
            if folder not in kept and folder != newest:
                remote.remove(folder)


def _contents(kind: str, folder: Path) -> tuple[Files, int]:
    """Return a local folder's files with size and hash, and its step. Raise FolderLost if the folder cannot be read."""
    try:
        return export_files(folder) if kind == EXPORTS else checkpoint_files(folder)
    except (OSError, ValueError, KeyError) as error:
        raise FolderLost(f"{folder}: cannot be read any more ({first_line(error)})") from error


def _pieces(path: Path, size: int | None = None) -> Iterator[bytes]:
    """Yield a local file, or its first ``size`` bytes, in pieces."""
    try:
        with path.open("rb") as file:
            remaining = path.stat().st_size if size is None else size
            while remaining and (piece := file.read(min(CHUNK, remaining))):
                remaining -= len(piece)
                yield piece
    except OSError as error:
        raise FolderLost(f"{path}: cannot be read any more ({first_line(error)})") from error


def _hold(folder: Path) -> Path:
    """Link the folder's files under a second name, so that local retention cannot remove them during the upload.

    Without hard links the folder itself is returned, so a slow upload may find it removed and then reports that.
    """
    # A killed run may have left links behind.
    for stale in folder.parent.glob(f"{HELD}*"):
        shutil.rmtree(stale, ignore_errors=True)
    held = folder.with_name(HELD + folder.name)
    try:
        for path in (folder, *folder.rglob("*")):
            linked = held / path.relative_to(folder)
            if path.is_dir():
                linked.mkdir()
            else:
                os.link(path, linked)
    except OSError:
        shutil.rmtree(held, ignore_errors=True)
        return folder
    return held
