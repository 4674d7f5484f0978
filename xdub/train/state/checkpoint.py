"""Checkpoints that are whole or absent: shards, then a manifest with every file's hash, then one rename.

    OUT/<phase>/checkpoints/step00000100/{rank00000.safetensors, rng_rank00000.pt, ..., manifest.json}

A folder counts only if its manifest verifies, so the newest good one is found after any kill.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from xdub.errors import UserError
from xdub.files.atomic import replace_folder, sync, write_json
from xdub.files.content import file_sha256
from xdub.files.lines import LineFile, read_lines
from xdub.files.run_folder import PhaseFolder
from xdub.train.context import TrainContext
from xdub.train.engine import Engine
from xdub.train.state.run_identity import difference

FORMAT = 2
"""Version of the layout; checkpoints of other versions are refused."""
MANIFEST = "manifest.json"
"""File that lists the other files of a checkpoint."""

Files = dict[str, dict[str, Any]]
"""name below a folder -> {bytes, sha256}"""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Position of a run. ``cursor`` counts samples consumed since the start, over all ranks and epochs."""

    step: int = 0
    cursor: int = 0
    epoch: int = 0
    meters: dict[str, Any] = field(default_factory=dict)
    """Sums of the unfinished logging interval, so that its mean is the same after a resume."""
    guard: dict[str, Any] = field(default_factory=dict)
    """State of `xdub.train.guard.Guard`."""
    useful_seconds: float = 0.0
    """Seconds spent on steps that were kept, without the time that kills cost."""


class Checkpoints:
    """Save, load and retention of one phase's checkpoints."""

    def __init__(self, folder: PhaseFolder, *, keep: int, facts: dict[str, Any]) -> None:
        """``facts`` (recipe, world_size, zero_stage, base weights, versions ...) go into every manifest."""
        self.folder, self.keep, self.facts = folder, keep, facts

    def save(self, engine: Engine, progress: Progress, context: TrainContext) -> Path:
        """Write a checkpoint and return its folder, which is complete for every rank. Collective.

        Raise UserError, and leave no folder, if a rank cannot write its files.
        """
        final = self.folder.checkpoint(progress.step)
        temporary = self.folder.unfinished_checkpoint(progress.step)
        if context.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        context.gather(None)
        failure = None
        try:
            engine.save(temporary)
            torch.save({"torch": torch.get_rng_state()}, temporary / _rng_file(context.rank))
        except torch.OutOfMemoryError:
            raise
        # torch reports a full disk as RuntimeError.
        except (OSError, RuntimeError) as error:
            failure = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        failures = [text for text in context.gather(failure) if text]
        if failures:
            shutil.rmtree(temporary, ignore_errors=True)
            free = shutil.disk_usage(self.folder.checkpoints).free / 1e9
            raise UserError(
                f"cannot write checkpoint {final} ({failures[0]}); {free:.1f} GB free on its disk"
            )

        names = sorted(str(p.relative_to(temporary)) for p in temporary.rglob("*") if p.is_file())
        described = {name: _synced(temporary / name) for name in names[context.rank :: context.world_size]}
        files = {name: entry for part in context.gather(described) for name, entry in part.items()}
        if context.rank == 0:
            manifest = {
                "format": FORMAT,
                **asdict(progress),
                **self.facts,
                "files": dict(sorted(files.items())),
            }
            write_json(temporary / MANIFEST, manifest)
            replace_folder(temporary, final)
            self._remove_old()
        context.gather(None)
        return final

    def load(self, engine: Engine, context: TrainContext) -> Progress:
        """Load the newest good checkpoint into the engine; return its position, or step 0 without one. Collective.

        Raise UserError when the checkpoint belongs to another run, see `run_identity`.
        """
        latest = context.gather(latest_checkpoint(self.folder) if context.rank == 0 else None)[0]
        if latest is None:
            return Progress()
        folder, manifest = latest
        self._check_continues(folder, manifest)
        engine.load(folder, manifest["step"])
        # Another number of ranks, or of ranks that share a sample, has other generators.
        shared = manifest.get("sequence_parallel", 1) == self.facts.get("sequence_parallel", 1)
        if shared and manifest["world_size"] == context.world_size:
            rng = torch.load(folder / _rng_file(context.rank), weights_only=True)
            torch.set_rng_state(rng["torch"])
        kept = {name: manifest[name] for name in Progress.__dataclass_fields__}
        cursor = max(manifest["cursor"], self._cursor_after_rollbacks(manifest["step"]))
        return replace(Progress(**kept), cursor=cursor)

    def roll_back(self, engine: Engine, context: TrainContext, *, cursor: int, most: int) -> Progress | None:
        """Load the newest checkpoint to continue from ``cursor``; None after ``most`` rollbacks or without one.

        A second rollback to the same checkpoint removes that checkpoint and loads the one before. Collective.
        """
        possible = False
        if context.rank == 0:
            latest, records = latest_checkpoint(self.folder), list(read_lines(self.folder.rollbacks))
            if latest is not None and records and records[-1]["step"] == latest[1]["step"]:
                shutil.rmtree(latest[0], ignore_errors=True)
                latest = latest_checkpoint(self.folder)
            if latest is not None and len(records) < most:
                possible = True
                file = LineFile(self.folder.rollbacks)
                file.append({"step": latest[1]["step"], "cursor": cursor})
                file.sync()
                file.close()
        return self.load(engine, context) if context.gather(possible)[0] else None

    def _cursor_after_rollbacks(self, step: int) -> int:
        """Return the position in the data after the rollbacks to a step; 0 without a rollback."""
        records = read_lines(self.folder.rollbacks)
        return max((record["cursor"] for record in records if record["step"] == step), default=0)

    def _check_continues(self, folder: Path, manifest: dict[str, Any]) -> None:
        if manifest["format"] != FORMAT:
            raise UserError(
                f"{folder} has checkpoint format {manifest['format']}, this version reads {FORMAT}"
            )
        if (text := difference(manifest, self.facts)) is not None:
            raise UserError(f"{folder} {text}")

    def _remove_old(self) -> None:
        for step in self.folder.checkpoint_steps()[self.keep :]:
            shutil.rmtree(self.folder.checkpoint(step), ignore_errors=True)


def latest_checkpoint(folder: PhaseFolder) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint whose files all have the size and hash of its manifest, and the manifest."""
    for step in folder.checkpoint_steps():
        checkpoint = folder.checkpoint(step)
        manifest = read_manifest(checkpoint)
        if manifest is not None and not damaged_files(checkpoint, manifest):
            return checkpoint, manifest
    return None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read a checkpoint's manifest; None if it is missing or damaged."""
    try:
        return json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def damaged_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Return the names of files that are missing or differ from the manifest."""
    bad = []
    for name, expected in manifest["files"].items():
        path = folder / name
        if (
            not path.is_file()
            or path.stat().st_size != expected["bytes"]
            or file_sha256(path) != expected["sha256"]
        ):
            bad.append(name)
    return bad


def describe(path: Path) -> dict[str, Any]:
    """Return size and hash of a file: {bytes, sha256}."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def checkpoint_files(folder: Path) -> tuple[Files, int]:
    """Return the files that a checkpoint's manifest lists, the manifest included, and its step.

    Raise OSError, ValueError or KeyError for a folder that is no checkpoint any more.
    """
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    return manifest["files"] | {MANIFEST: describe(folder / MANIFEST)}, int(manifest["step"])


def _synced(path: Path) -> dict[str, Any]:
    """Flush a file from the page cache to the disk, and describe it."""
    with path.open("rb") as file:
        sync(file.fileno())
    return describe(path)


def _rng_file(rank: int) -> str:
    return f"rng_rank{rank:05d}.pt"
