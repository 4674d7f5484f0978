"""From the exports of the phases to one model folder (the layout of `xdub.model.bundle`)."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from xdub.config import Recipe, expert_of
from xdub.errors import UserError
from xdub.files.atomic import atomic_folder


def write_bundle(run: Path, recipe: Recipe, out: Path, phases: tuple[str, ...] | None = None) -> Path:
    """Copy RUN/<phase>/export of ``phases`` (default: all that the recipe trains) into the model folder ``out``, which
    appears at once; returns it.

    UserError if a phase has no export.
    """
    with atomic_folder(out) as temporary:
        for phase in phases or recipe.phase_names:
            source = exported(run, phase)
            if not source.is_file():
                raise UserError(f"{source} is missing: train the phase {phase} first")
            shutil.copyfile(source, temporary / f"{phase}.safetensors")
        (temporary / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_dict(), sort_keys=False), "utf-8")
    return out


def same_bundle(run: Path, bundle: Path, phases: tuple[str, ...]) -> bool:
    """Whether the bundle holds what the phases exported last."""
    for phase in phases:
        made, source = bundle / f"{phase}.safetensors", exported(run, phase)
        if not (made.is_file() and source.is_file() and made.read_bytes() == source.read_bytes()):
            return False
    return (bundle / "recipe.yaml").is_file()


def exported(run: Path, phase: str) -> Path:
    """The weights that a phase's training leaves."""
    name = "model" if expert_of(phase) is None else "adapter"
    return run / phase / "export" / f"{name}.safetensors"
