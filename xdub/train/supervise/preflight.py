"""What can be found out before machines are paid for: data, disk, and whether the folder is free."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from xdub.config import Recipe
from xdub.data.sample_order import make_plan
from xdub.errors import UserError
from xdub.plan.network import count_parameters
from xdub.plan.storage import checkpoint_bytes
from xdub.train.rank import RESULT, STEPS


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
    needed = checkpoint_bytes(recipe, folder.name, count_parameters(recipe, folder.name)) * at_once + 100e6
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB free, checkpoints need about {needed / 1e9:.1f} GB; "
            "free some, lower train.keep_checkpoints, or choose another --out"
        )
