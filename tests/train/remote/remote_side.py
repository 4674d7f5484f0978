"""Write runs of a few bytes, and simulate a file system that fails or waits."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from xdub.files.run_folder import PhaseFolder
from xdub.train.remote.store import CHECKPOINTS, MANIFEST, Copy, Remote
from xdub.train.remote.upload import Uploads

PHASE = "generator"


class Flaky(LocalFileSystem):
    """A disk on which `hook(operation, path)` may raise or wait before anything is written or removed."""

    protocol = "flaky"
    cachable = False
    hook = staticmethod(lambda operation, path: None)

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        if "w" in mode:
            Flaky.hook("write", path)
        return super()._open(path, mode, **more)

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove a path after the hook."""
        Flaky.hook("remove", path)
        return super().rm(path, recursive, maxdepth)

    def rm_file(self, path: str) -> None:
        """Remove a file after the hook."""
        Flaky.hook("remove", path)
        return super().rm_file(path)


fsspec.register_implementation("flaky", Flaky, clobber=True)


def phase(out: Path) -> PhaseFolder:
    """Return the folder of the phase in a run."""
    return PhaseFolder(out, PHASE)


def newest(uri: str) -> Copy | None:
    """Return the newest whole checkpoint of a remote."""
    return next(iter(Remote(uri, PHASE).copies(CHECKPOINTS)), None)


def write_checkpoint(out: Path, step: int, salt: str = "", ranks: int = 2) -> Path:
    """Write OUT/generator/checkpoints/step..., and records of that many steps."""
    folder = phase(out).checkpoint(step)
    shutil.rmtree(folder, ignore_errors=True)
    files = {}
    for rank in range(ranks):
        path = folder / f"engine/rank{rank}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{step}{salt}".encode() * 1000 * (rank + 1))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files[f"engine/rank{rank}.pt"] = {"bytes": path.stat().st_size, "sha256": digest}
    (folder / MANIFEST).write_text(json.dumps({"step": step, "files": files}))
    phase(out).steps.write_text("".join(json.dumps({"step": n + 1}) + "\n" for n in range(step)))
    phase(out).run.state.write_text('{"parent": "r"}')
    return folder


def write_export(out: Path, step: int) -> Path:
    """Write OUT/generator/export and the result of a phase of that many steps."""
    folder = phase(out).export
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights" * step)
    (folder / "config.json").write_text(json.dumps({"step": step}))
    phase(out).result.write_text(json.dumps({"step": step}))
    return folder


def started_uploads(uri: str, out: Path, *, keep: int = 2) -> Uploads:
    """Start the uploads of a run's phase."""
    return Uploads(uri, phase(out), keep=keep).start()


def upload_all(uri: str, out: Path, *steps: int, keep: int = 2) -> None:
    """Write and upload checkpoints, each with an uploader of its own."""
    for step in steps:
        uploads = started_uploads(uri, out, keep=keep)
        uploads.checkpoint(write_checkpoint(out, step))
        assert uploads.close(20) is None


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until a condition holds. Raise AssertionError after a deadline."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.005)


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder, by its name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def number_of_steps(out: Path) -> int:
    """Count the lines in the record of committed steps."""
    return len(phase(out).steps.read_text().splitlines())
