"""Restore of a phase from its remote copy, on a machine that lacks all or part of it; the inverse of `upload`.

It fetches the newest whole checkpoint and the newest whole export, and with the later of the two the records that were
uploaded with it, so that they belong together. Records are JSON and JSON lines: those of the phase replace local ones,
OUT/run_state.json is only written where it is missing. steps.jsonl may be longer than the checkpoint; opening it cuts
it there. Every byte is checked against the sha256 of the remote manifest, and nothing is unpickled here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from xdub.errors import UserError
from xdub.files.atomic import replace_folder
from xdub.files.run_folder import PhaseFolder
from xdub.train.remote.store import CHECKPOINTS, EXPORTS, Copy, Remote, first_line, shown
from xdub.train.state.checkpoint import latest_checkpoint

RECORD_SUFFIXES = (".json", ".jsonl")
"""Files of other types are not restored, whatever a copy holds."""


def restore(uri: str, folder: PhaseFolder) -> Path | None:
    """Fetch what the remote has beyond the local checkpoints; the fetched checkpoint's folder, or None without one.

    A copy with a wrong byte is skipped for the one before it. UserError when the file system fails.
    """
    folder = folder.resolved()
    latest = latest_checkpoint(folder)
    local_step = -1 if latest is None else latest[1]["step"]
    try:
        remote = Remote(uri, folder.phase)
        checkpoint, export = (_fetch(remote, kind, folder, local_step) for kind in (CHECKPOINTS, EXPORTS))
        if export:
            replace_folder(export[1] / "files", folder.export)
        # The export comes after the last checkpoint, so of two at the same step its records are the later ones.
        for _, fetched in sorted(filter(None, (checkpoint, export)), key=lambda copy: copy[0]):
            _put_records(fetched, folder)
        # The checkpoint comes last, so a call that was killed before does everything again.
        if not checkpoint:
            return None
        return replace_folder(checkpoint[1] / "files", folder.checkpoint(checkpoint[0]))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{shown(uri)}: cannot be fetched ({first_line(error)}); try again, or take out --resume"
        ) from error
    finally:
        for kind in (CHECKPOINTS, EXPORTS):
            shutil.rmtree(folder.fetching(kind), ignore_errors=True)


def _fetch(remote: Remote, kind: str, folder: PhaseFolder, local_step: int) -> tuple[int, Path] | None:
    """(step, temporary folder) of the newest intact copy beyond ``local_step``."""
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
    """Download a file; False when its hash is not the manifest's."""
    path, digest = folder / name, hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for piece in remote.read(f"{copy.path}/{name}"):
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest() == copy.files[name]["sha256"]


def _put_records(fetched: Path, folder: PhaseFolder) -> None:
    """Move OUT/x and OUT/<phase>/x from records/x and records/<phase>/x; other files of a copy are ignored."""
    records, out = fetched / "records", folder.run.path
    for path in records.glob("*.json"):
        # Other phases are in a local file, too.
        if not (out / path.name).exists():
            os.replace(path, out / path.name)
    for path in (records / folder.phase).glob("*"):
        if path.suffix in RECORD_SUFFIXES:
            os.replace(path, folder.path / path.name)
            if path.name == folder.journal.name:
                # The offsets are those of the journal before. Sending a record twice does no harm.
                for offset in folder.offsets:
                    offset.unlink(missing_ok=True)
