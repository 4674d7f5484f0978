"""Restore of a phase from its remote copy, on a machine that lacks all or part of it; the inverse of `upload`.

The newest whole checkpoint and the newest whole export are fetched. The records are those that were uploaded with the
later of the two, so records and weights belong together. Records are JSON and JSON-lines files: those of the phase
replace local ones, and OUT/run_state.json is written only where it is missing. steps.jsonl may be longer than the
checkpoint, and opening it truncates it there. Every byte is checked against the sha256 of the remote manifest, and
nothing is unpickled here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from xdub.errors import UserError
from xdub.files.atomic import replace_folder, sync
from xdub.files.run_folder import PhaseFolder
from xdub.files.uris import first_line, shown
from xdub.train.remote.store import CHECKPOINTS, EXPORTS, Copy, Remote
from xdub.train.state.checkpoint import latest_checkpoint

RECORD_SUFFIXES = (".json", ".jsonl")
"""Suffixes of the records that are restored; other files of a copy are ignored."""


def restore(uri: str, folder: PhaseFolder) -> Path | None:
    """Fetch a checkpoint and an export that are newer than the local checkpoints.

    Return the folder of the fetched checkpoint, or None if the remote has no newer one. A copy with a wrong byte is
    skipped, and the copy before it is fetched. Raise UserError when the file system fails.
    """
    folder = folder.resolved()
    latest = latest_checkpoint(folder)
    local_step = -1 if latest is None else latest[1]["step"]
    try:
        remote = Remote(uri, folder.phase)
        checkpoint, export = (_fetch(remote, kind, folder, local_step) for kind in (CHECKPOINTS, EXPORTS))
        if export:
            replace_folder(export[1] / "files", folder.export)
        # The export is written after the last checkpoint, so its records are the later ones at the same step.
        for _, fetched in sorted(filter(None, (checkpoint, export)), key=lambda copy: copy[0]):
            _put_records(fetched, folder)
        # The checkpoint is moved last, so a call that is killed earlier is repeated as a whole.
        if not checkpoint:
            return None
        return replace_folder(checkpoint[1] / "files", folder.checkpoint(checkpoint[0]))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{shown(uri)}: cannot be fetched ({first_line(error)}); try again, or leave out --resume"
        ) from error
    finally:
        for kind in (CHECKPOINTS, EXPORTS):
            shutil.rmtree(folder.fetching(kind), ignore_errors=True)


def _fetch(remote: Remote, kind: str, folder: PhaseFolder, local_step: int) -> tuple[int, Path] | None:
    """Return (step, temporary folder) of the newest intact copy after ``local_step``, or None."""
    temporary = folder.fetching(kind)
    for copy in remote.copies(kind):
        if copy.step <= local_step:
            return None
        shutil.rmtree(temporary, ignore_errors=True)
        wrong = next((name for name in copy.files if not _fetch_file(remote, copy, name, temporary)), None)
        if wrong is None:
            return copy.step, temporary
        print(f"{copy.path}/{wrong}: sha256 differs from its manifest; skipped", file=sys.stderr)
    return None


def _fetch_file(remote: Remote, copy: Copy, name: str, folder: Path) -> bool:
    """Download a file; return False when its hash differs from the manifest's."""
    path, digest = folder / name, hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for piece in remote.read(f"{copy.path}/{name}"):
            file.write(piece)
            digest.update(piece)
        file.flush()
        sync(file.fileno())
    return digest.hexdigest() == copy.files[name]["sha256"]


def _put_records(fetched: Path, folder: PhaseFolder) -> None:
    """Move OUT/x and OUT/<phase>/x from records/x and records/<phase>/x; other files of a copy are ignored."""
    records, out = fetched / "records", folder.run.path
    for path in records.glob("*.json"):
        # A local file also holds other phases, so it is kept.
        if not (out / path.name).exists():
            os.replace(path, out / path.name)
    for path in (records / folder.phase).glob("*"):
        if path.suffix in RECORD_SUFFIXES:
            os.replace(path, folder.path / path.name)
            if path.name == folder.journal.name:
                # The offsets belong to the replaced journal. The tracker accepts a record twice.
                for offset in folder.offsets:
                    offset.unlink(missing_ok=True)
