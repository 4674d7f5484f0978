"""What can be found out before machines are paid for: data, weights, disk, and whether the folder is free."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from xdub.config import Recipe
from xdub.data.plan import make_plan
from xdub.errors import UserError
from xdub.plan.data import checkpoint_bytes
from xdub.train.phases import get_phase
from xdub.train.worker import RESULT, STEPS

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""May be a folder or a model of the hub; only loading tells."""


def check_data(folders: list[Path], phase: str, recipe: Recipe) -> None:
    """UserError for data that the phase cannot use."""
    train = recipe.for_phase(phase)
    plan = make_plan(folders, phase=phase, window=recipe.phase(phase).window, seed=train.seed or 0)
    if len(plan) < train.global_batch:  # each repetition has its own window and noise
        what = f"{len(plan)} usable clips for batches of {train.global_batch}"
        print(f"{phase}: {what}: clips repeat within a batch, more data would be better", file=sys.stderr)


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder} ({error.strerror}); choose another --out"
        ) from error


def check_fresh(folder: Path, resume: bool) -> None:
    if not resume and ((folder / STEPS).exists() or (folder / RESULT).exists()):
        raise UserError(f"{folder} already holds a run: add --resume to continue it, or choose another --out")


def check_disk(folder: Path, recipe: Recipe) -> None:
    """Room for the checkpoints that are kept at once."""
    train = recipe.for_phase(folder.name)
    # One is being written, and one more may be kept alive by an upload.
    at_once = train.keep_checkpoints + (1 if train.upload_to is None else 2)
    needed = checkpoint_bytes(recipe, folder.name) * at_once + 100e6
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB free, checkpoints need about {needed / 1e9:.1f} GB; "
            "free some, lower train.keep_checkpoints, or choose another --out"
        )


WITHOUT_PATH = ("tiny", "dlib")
"""Frozen networks that come with the package, or are found by `xdub weights`."""


def check_paths(recipe: Recipe, phase: str) -> None:
    """UserError for weights that the phase uses, where the recipe does not name them or they are not there."""
    codec, audio, perception = recipe.codec, recipe.audio, recipe.perception
    if codec.kind == "wan" and codec.path is None:
        raise UserError("codec.kind=wan needs its weights: --set codec.path=FOLDER or a hub name")
    if audio.kind == "whisper" and audio.path is None:
        raise UserError("audio.kind=whisper needs its weights: --set audio.path=FOLDER or a hub name")
    named = {"codec.path": codec.path, "audio.path": audio.path}
    for name in get_phase(phase).NETWORKS:
        kind, key = getattr(perception, name), f"perception.{name}_path"
        named[key] = getattr(perception, f"{name}_path")
        if named[key] is None and kind not in WITHOUT_PATH:
            raise UserError(f"perception.{name}={kind} needs {key}: --set {key}=PATH")
    for key, path in named.items():
        if path is not None and not HUB_NAME.fullmatch(path) and not Path(path).exists():
            raise UserError(f"{key}={path}: there is no such file or folder")
