"""Restore of a phase from its remote copy on a machine that lacks all or part of it; the inverse of `upload`.

What comes back: the newest whole checkpoint, the newest whole export, and with the later of the two the records that
went with it, so that they belong together. Records are JSON and JSON lines: RUN/<phase>/{steps.jsonl, journal.jsonl,
recipe.json, result.json, quarantine.jsonl} replace what is there, RUN/run_state.json only fills a gap. steps.jsonl may
be longer than the checkpoint; opening it cuts it there. Every byte is checked against the sha256 of the remote
manifest, and nothing is unpickled here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from xdub.errors import UserError
from xdub.files.atomic import replace_folder
from xdub.train.remote.store import CHECKPOINTS, EXPORTS, Copy, Remote, first_line, shown
from xdub.train.state.checkpoint import damaged_files, read_manifest

RECORD_SUFFIXES = (".json", ".jsonl")


def newest(uri: str, phase: str) -> Copy | None:
    """The newest whole remote checkpoint, by its sizes (its bytes are checked when it is fetched)."""
    return next(iter(Remote(uri, phase).copies(CHECKPOINTS)), None)


def restore(uri: str, phase_folder: Path) -> Path | None:
    """The fetched checkpoint's folder in RUN/<phase>/checkpoints; None when there is none beyond the local ones.

    A copy with a wrong byte is passed over for the one before it. UserError when the file system fails.
    """
    phase_folder = phase_folder.resolve()
    here = _local_step(phase_folder / CHECKPOINTS)
    try:
        remote = Remote(uri, phase_folder.name)
        checkpoint, export = (_fetch(remote, kind, phase_folder, here) for kind in (CHECKPOINTS, EXPORTS))
        # The checkpoint last: killed before it is there, the next call does all of this again.
        if export:
            replace_folder(export[1] / "files", phase_folder / "export")
        # The export comes after the last checkpoint, so of two at the same step its records are the later ones.
        for _, fetched in sorted(filter(None, (checkpoint, export)), key=lambda found: found[0]):
            _put_records(fetched, phase_folder)
        if not checkpoint:
            return None
        folder = phase_folder / CHECKPOINTS / f"step{checkpoint[0]:08d}"
        return replace_folder(checkpoint[1] / "files", folder)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{shown(uri)}: cannot be fetched ({first_line(error)}); try again, or take out --resume"
        ) from error
    finally:
        for kind in (CHECKPOINTS, EXPORTS):
            shutil.rmtree(_temporary(phase_folder, kind), ignore_errors=True)


def _local_step(checkpoints: Path) -> int:
    """Of the newest whole local checkpoint, -1 if there is none."""
    for folder in sorted(checkpoints.glob("step????????"), reverse=True):
        manifest = read_manifest(folder)
        if manifest is not None and not damaged_files(folder, manifest):
            return manifest["step"]
    return -1


def _fetch(remote: Remote, kind: str, phase_folder: Path, here: int) -> tuple[int, Path] | None:
    """(step, temporary folder) of the newest copy beyond step ``here`` whose every byte is right."""
    temporary = _temporary(phase_folder, kind)
    for copy in remote.copies(kind):
        if copy.step <= here:
            return None
        shutil.rmtree(temporary, ignore_errors=True)
        wrong = next((name for name in copy.files if not _fetch_file(remote, copy, name, temporary)), None)
        if wrong is None:
            return copy.step, temporary
        print(f"{copy.path}/{wrong}: sha256 differs from its manifest; passed over", file=sys.stderr)
    return None


def _fetch_file(remote: Remote, copy: Copy, name: str, folder: Path) -> bool:
    """False when the bytes are not those that the manifest promises."""
    path, digest = folder / name, hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for piece in remote.read(f"{copy.path}/{name}"):
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest() == copy.files[name]["sha256"]


def _put_records(fetched: Path, phase_folder: Path) -> None:
    """RUN/x and RUN/<phase>/x from records/x and records/<phase>/x; whatever else a copy may name stays there."""
    records = fetched / "records"
    for path in records.glob("*.json"):
        if not (phase_folder.parent / path.name).exists():  # other phases are in it, too
            os.replace(path, phase_folder.parent / path.name)
    for path in (records / phase_folder.name).glob("*"):
        if path.suffix in RECORD_SUFFIXES:
            os.replace(path, phase_folder / path.name)
            # How far another journal was sent says nothing about this one; sending twice does no harm.
            (phase_folder / path.name).with_suffix(".offset").unlink(missing_ok=True)


def _temporary(phase_folder: Path, kind: str) -> Path:
    return phase_folder / f".fetching-{kind}"
