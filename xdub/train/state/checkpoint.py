"""Checkpoints that are whole or absent: shards, then a manifest with every file's hash, then one rename.

    RUN/<phase>/checkpoints/step00000100/{rank00000.safetensors, rng_rank00000.pt, ..., manifest.json}

A folder counts only once its manifest verifies, so the newest good one is found by looking, whatever was killed.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from xdub.data.manifest import file_sha256
from xdub.errors import UserError
from xdub.files.atomic import replace_folder, write_json
from xdub.files.lines import LineFile, read_lines
from xdub.train.context import TrainContext
from xdub.train.engine import Engine

FORMAT = 2
MANIFEST = "manifest.json"
ROLLBACKS = "rollbacks.jsonl"
"""{step, cursor} of every return to a checkpoint: its weights, later data."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is. ``cursor`` counts samples consumed since the start, over all ranks and epochs."""

    step: int = 0
    cursor: int = 0
    epoch: int = 0
    meters: dict[str, Any] = field(default_factory=dict)
    """Sums of the unfinished logging interval, so that its mean is the same after a resume."""
    guard: dict[str, Any] = field(default_factory=dict)
    """State of `xdub.train.guard.Guard`."""
    useful_seconds: float = 0.0
    """Time spent on steps that were kept: what a kill costs is not in it."""


class Checkpoints:
    """The checkpoint folder of one phase."""

    def __init__(self, root: Path, *, keep: int, facts: dict[str, Any]) -> None:
        """``facts`` (recipe, world_size, zero_stage, base weights, versions ...) go into every manifest."""
        self.root, self.keep, self.facts = root, keep, facts

    def folder(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.root / f"step{step:08d}"

    def save(self, engine: Engine, progress: Progress, context: TrainContext) -> Path:
        """Collective. Either the folder is complete on every rank's view, or UserError and nothing is left."""
        final = self.folder(progress.step)
        temporary = self.root / f".writing-{final.name}"
        if context.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        context.gather(None)
        failure = None
        try:
            engine.save(temporary)
            torch.save({"torch": torch.get_rng_state()}, temporary / f"rng_rank{context.rank:05d}.pt")
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            failure = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        failures = [text for text in context.gather(failure) if text]
        if failures:
            shutil.rmtree(temporary, ignore_errors=True)
            free = shutil.disk_usage(self.root).free / 1e9
            raise UserError(f"cannot write checkpoint {final} ({failures[0]}); {free:.1f} GB free there")

        names = sorted(str(p.relative_to(temporary)) for p in temporary.rglob("*") if p.is_file())
        mine = {name: _describe(temporary / name) for name in names[context.rank :: context.world_size]}
        files = {name: what for part in context.gather(mine) for name, what in part.items()}
        if context.rank == 0:
            manifest = {
                "format": FORMAT,
                **asdict(progress),
                **self.facts,
                "files": dict(sorted(files.items())),
            }
            write_json(temporary / MANIFEST, manifest)
            replace_folder(temporary, final)
            self._forget_old()
        context.gather(None)
        return final

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """Newest folder whose every file has the size and hash of its manifest."""
        for folder in sorted(self.root.glob("step????????"), reverse=True):
            manifest = read_manifest(folder)
            if manifest is not None and not damaged_files(folder, manifest):
                return folder, manifest
        return None

    def load(self, engine: Engine, context: TrainContext) -> Progress:
        """Bring the engine to the newest good checkpoint; step 0 when there is none. Collective.

        UserError when it cannot be continued as asked.
        """
        found = context.gather(self.latest() if context.rank == 0 else None)[0]
        if found is None:
            return Progress()
        folder, manifest = found
        self._check_continues(folder, manifest)
        engine.load(folder, manifest["step"])
        if (
            manifest["world_size"] == context.world_size
        ):  # else the ranks are others, with generators of their own
            rng = torch.load(folder / f"rng_rank{context.rank:05d}.pt", weights_only=True)
            torch.set_rng_state(rng["torch"])
        kept = {name: manifest[name] for name in Progress.__dataclass_fields__}
        return replace(
            Progress(**kept), cursor=max(manifest["cursor"], self._cursor_behind(manifest["step"]))
        )

    def roll_back(self, engine: Engine, context: TrainContext, *, cursor: int, most: int) -> Progress | None:
        """The engine as in a checkpoint, to continue from ``cursor``; None when it went back ``most`` times already,
        or there is nothing to go back to. Going back to the same checkpoint a second time goes one further. Collective.
        """
        possible = False
        if context.rank == 0:
            found, records = self.latest(), list(read_lines(self.root / ROLLBACKS))
            if found is not None and records and records[-1]["step"] == found[1]["step"]:
                shutil.rmtree(found[0], ignore_errors=True)
                found = self.latest()
            possible = found is not None and len(records) < most
            if possible:
                file = LineFile(self.root / ROLLBACKS)
                file.append({"step": found[1]["step"], "cursor": cursor})
                file.sync()
                file.close()
        return self.load(engine, context) if context.gather(possible)[0] else None

    def _cursor_behind(self, step: int) -> int:
        """Where the data go on after the rollbacks to a step."""
        return max((r["cursor"] for r in read_lines(self.root / ROLLBACKS) if r["step"] == step), default=0)

    def _check_continues(self, folder: Path, manifest: dict[str, Any]) -> None:
        if manifest["format"] != FORMAT:
            raise UserError(
                f"{folder} has checkpoint format {manifest['format']}, this version reads {FORMAT}"
            )
        for key, hint in MUST_MATCH.items():
            was, now = manifest.get(key), self.facts.get(key)
            if was != now:
                raise UserError(
                    f"{folder} was written with {key}={_short(was)}, this run has {_short(now)}: {hint}"
                )

    def _forget_old(self) -> None:
        for folder in sorted(self.root.glob("step????????"))[: -self.keep]:
            shutil.rmtree(folder, ignore_errors=True)


MUST_MATCH = {
    "phase": "choose another --out",
    "global_batch": "resume with the same train.global_batch, or the order of the samples would change",
    "seed": "resume with the same seed, or the noise would change",
    "ema": "resume with the same train.ema",
    "network": "the network is another one; resume with the same model, codec, audio and lora sections",
    "base": "the base weights have changed; start again in another --out",
    "data": "the data have changed; start again in another --out",
}
"""Facts that decide whether a checkpoint continues the same run, with what to do when they differ."""


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest, or None where there is none that can be read."""
    try:
        return json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def damaged_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Files that are missing or differ from the manifest."""
    bad = []
    for name, wanted in manifest["files"].items():
        path = folder / name
        if (
            not path.is_file()
            or path.stat().st_size != wanted["bytes"]
            or file_sha256(path) != wanted["sha256"]
        ):
            bad.append(name)
    return bad


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 60 else text[:57] + "..."


def newest_step(root: Path) -> int:
    """Step of the newest checkpoint folder, whole or not; 0 if there is none."""
    return max((int(folder.name.removeprefix("step")) for folder in root.glob("step????????")), default=0)
