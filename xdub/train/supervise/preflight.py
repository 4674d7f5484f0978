"""Checks before machines are paid for: usable data, enough disk, and a folder without a run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from xdub.config import Recipe, in_model
from xdub.data.sample_order import sample_order
from xdub.data.shards import check_utf8
from xdub.errors import UserError
from xdub.files.run_folder import PhaseFolder
from xdub.plan.random_start import random_start_warning
from xdub.train.learners import learner_of


def check_data(folders: Sequence[str | Path], phase: str, recipe: Recipe) -> None:
    """Raise UserError for data that the phase cannot use; warn on stderr when a batch repeats clips."""
    train = recipe.for_phase(phase)
    order = sample_order(
        folders,
        phase=phase,
        window=recipe.window(phase),
        seed=recipe.seed_of(phase),
        held_out=recipe.held_out(phase),
    )
    if recipe.held_out(phase) and order.held_out_by != "speaker":
        reason = (
            "their speakers are also trained on" if order.held_out_by else "there are too few clips for any"
        )
        print(f"{phase}: the accuracy on held-out clips means little: {reason}", file=sys.stderr)
    # Clips may repeat, because each repetition has its own window and noise.
    if len(order) < train.global_batch:
        size = f"{len(order)} usable clips for batches of {train.global_batch}"
        print(f"{phase}: {size}: clips repeat within a batch; more data would be better", file=sys.stderr)


def create_folder(folder: PhaseFolder) -> None:
    """Create the folder of a phase. Raise UserError if the file system refuses, or if its name is not UTF-8 text."""
    # Ray sends the path to the workers as UTF-8, from the root on.
    check_utf8(folder.path.absolute())
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create the folder {folder} ({error.strerror}); choose another --out"
        ) from error


def check_fresh(folder: PhaseFolder, resume: bool) -> None:
    """Raise UserError when the folder holds a run and ``resume`` is not set."""
    if not resume and (folder.steps.exists() or folder.result.exists()):
        raise UserError(f"{folder} already holds a run: add --resume to continue it, or choose another --out")


def warn_random_start(folder: PhaseFolder, recipe: Recipe, init_from: str | None) -> None:
    """Print a warning if a large network is about to start from random weights at a rate for fine-tuning.

    A run that has steps continues from its own weights, so the warning is printed once.
    """
    warning = None
    if not folder.steps.exists():
        warning = random_start_warning(recipe, folder.phase, init_from=init_from)
    if warning is not None:
        print(f"xdub: warning: {warning}", file=sys.stderr)


def warn_bf16_sums(phase: str, recipe: Recipe, workers: int) -> None:
    """Print a warning if a phase sums the gradients of several micro batches in bf16.

    DeepSpeed sums them in fp32 from ZeRO stage 2 on.
    """
    train, section = recipe.for_phase(phase), f"phases.{phase}" if in_model(phase) else phase
    count = train.global_batch // (train.micro_batch_of(workers) * train.groups_of(workers))
    if train.precision == "bf16" and train.zero_stage < 2 and count > 1:
        print(
            f"xdub: warning: {phase}: with zero_stage={train.zero_stage}, gradients of {count} micro batches are "
            f"summed in bf16, which rounds small ones away; --set {section}.zero_stage=2 sums them in fp32",
            file=sys.stderr,
        )


def check_disk(folder: PhaseFolder, recipe: Recipe) -> None:
    """Raise UserError when the disk has no room for all checkpoints that exist at one time."""
    train = recipe.for_phase(folder.phase)
    # One more checkpoint is being written, and an upload may hold another one.
    at_once = train.keep_checkpoints + (1 if train.upload_to is None else 2)
    needed = learner_of(recipe, folder.phase).checkpoint_bytes() * at_once + 100e6
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB free, checkpoints need about {needed / 1e9:.1f} GB; "
            "free some, lower train.keep_checkpoints, or choose another --out"
        )
