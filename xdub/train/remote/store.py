"""Remote copies of a run on another file system: their layout, and the check whether they are whole.

    URI/<phase>/checkpoints/step00000100-<16 hex>/{files/..., records/..., manifest.json}
    URI/<phase>/exports/step00000120-<16 hex>/{files/..., records/..., manifest.json}

``files/`` is the local folder unchanged (a checkpoint's own manifest included), ``records/`` holds the run's small
files at that time, under their names in OUT. manifest.json, {number, step, files: {name: {bytes, sha256}}}, is written
last: a folder without it, or with a file missing or short, is ignored. Object stores cannot rename, so no whole folder
is written again: its hex digits are the hash of its content. ``number`` counts uploads, and the highest is the newest,
so a run that was rolled back wins over the later steps that it abandoned.

`xdub.files.uris` opens the file system of the URI. A URI belongs to one run.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from xdub.errors import UserError
from xdub.files.storage import safe_name
from xdub.files.uris import absolute_uri, first_line, open_uri, shown, without_secrets

MANIFEST = "manifest.json"
"""File that lists the other files of a copy."""
CHECKPOINTS, EXPORTS = "checkpoints", "exports"
"""Kinds of copies, and the names of their folders."""
ANSWER_SECONDS = 20.0
"""Longest wait for a file system's first answer; their own time-outs are minutes."""
CHUNK = 8 << 20
"""Bytes that are read at a time."""
_FOLDER = re.compile(r"step(\d{8,})-[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A whole remote folder."""

    path: str
    step: int
    number: int
    files: dict[str, dict[str, Any]]
    """name below the folder -> {bytes, sha256}"""


class Remote:
    """Copies of one phase. Every method may raise the exceptions of the file system."""

    def __init__(self, uri: str, phase: str) -> None:
        """Open the file system of ``uri``. Raise UserError for an unknown scheme."""
        self.fs, root = open_uri(uri)
        self.root = f"{root.rstrip('/')}/{phase}"

    def copies(self, kind: str) -> list[Copy]:
        """Return the whole folders of a kind, the newest first."""
        whole = (self._whole(folder) for folder in self.folders(kind))
        return sorted((copy for copy in whole if copy), key=lambda copy: copy.number, reverse=True)

    def folders(self, kind: str) -> list[str]:
        """Return the paths of all folders of a kind, whole or not."""
        from pyarrow.fs import FileSelector

        infos = self.fs.get_file_info(FileSelector(f"{self.root}/{kind}", allow_not_found=True))
        return [info.path for info in infos if _FOLDER.fullmatch(info.base_name)]

    def _whole(self, folder: str) -> Copy | None:
        from pyarrow.fs import FileSelector, FileType

        infos = self.fs.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
        # Some file systems return a leading slash for a path without one.
        start = len(folder.strip("/")) + 1
        sizes = {info.path.strip("/")[start:]: info.size for info in infos if info.type == FileType.File}
        if MANIFEST not in sizes:
            return None
        try:
            raw = json.loads(b"".join(self.read(f"{folder}/{MANIFEST}")))
            copy = Copy(path=folder, step=raw["step"], number=raw["number"], files=raw["files"])
            whole = all(safe_name(name) and sizes.get(name) == f["bytes"] for name, f in copy.files.items())
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return copy if whole else None

    def read(self, path: str) -> Iterator[bytes]:
        """Yield a file in pieces."""
        with self.fs.open_input_stream(path) as file:
            while piece := file.read(CHUNK):
                yield piece

    def write(self, path: str, pieces: Iterator[bytes]) -> dict[str, Any]:
        """Write a file; return {bytes, sha256} of its content."""
        digest, size = hashlib.sha256(), 0
        try:
            out = self.fs.open_output_stream(path)
        # A disk needs the folder first; an object store has no folders.
        except FileNotFoundError:
            self.fs.create_dir(path.rsplit("/", 1)[0], recursive=True)
            out = self.fs.open_output_stream(path)
        with out:
            for piece in pieces:
                out.write(piece)
                digest.update(piece)
                size += len(piece)
        return {"bytes": size, "sha256": digest.hexdigest()}

    def remove(self, folder: str) -> None:
        """Remove a folder, its manifest first, so that a killed removal leaves no copy that looks whole."""
        from pyarrow.fs import FileType

        manifest = f"{folder}/{MANIFEST}"
        if self.fs.get_file_info([manifest])[0].type == FileType.File:
            self.fs.delete_file(manifest)
        self.fs.delete_dir(folder)


def check(
    uri: str, phase: str | None = None, *, fresh: bool = False, seconds: float = ANSWER_SECONDS
) -> None:
    """Write, read and remove a small file. Raise UserError, within ``seconds``, when one of these fails.

    With ``fresh``, also raise UserError when the remote has a copy of ``phase``, which another run must not replace.
    The check runs in a process of its own, because a client that waits for its server cannot be stopped, not even when
    Python exits.
    """
    uri = absolute_uri(uri)
    # Other users can read a process's arguments, and a URI may hold credentials.
    request = json.dumps([uri, phase, fresh])
    command = [sys.executable, "-P", "-m", __name__]  # -P: no import from the current folder
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise UserError(f"{shown(uri)}: no answer within {seconds:.0f} s") from None
    if done.returncode:
        last = (done.stdout.strip() or done.stderr.strip() or "the check crashed").splitlines()[-1]
        raise UserError(f"{shown(uri)}: {last}")


def main() -> int:
    """Run the process of `check`: return exit code 0, or print a line on stdout and return 1."""
    uri, phase, fresh = json.load(sys.stdin)
    try:
        remote = Remote(uri, phase or "")
        path = f"{remote.root.rstrip('/')}/.xdub-{uuid.uuid4().hex[:8]}"
        remote.write(path, iter([b"xdub"]))
        intact = b"".join(remote.read(path)) == b"xdub"
        remote.fs.delete_file(path)
        taken = fresh and remote.copies(CHECKPOINTS)
    except UserError as error:
        print(str(error).removeprefix(f"{shown(uri)}: "))
        return 1
    except Exception as error:
        print(f"cannot be written ({without_secrets(uri, first_line(error))})")
        return 1
    if taken:
        print(
            f"already holds checkpoints of {phase}: add --resume to continue that run, or choose another URI"
        )
    elif not intact:
        print("a file read back differs from the file written")
    return int(bool(taken) or not intact)


if __name__ == "__main__":
    sys.exit(main())
