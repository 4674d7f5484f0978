"""From the exports of the phases to one model folder (the layout of `xdub.model.bundle`)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import yaml

from xdub.config import Recipe
from xdub.errors import UserError

WEIGHTS = {
    "generator": "model.safetensors",
    "editor": "model.safetensors",
    "lip": "adapter.safetensors",
    "texture": "adapter.safetensors",
}


def write_bundle(run: Path, recipe: Recipe, out: Path, phases: tuple[str, ...] = tuple(WEIGHTS)) -> Path:
    """Copy RUN/<phase>/export of ``phases`` into the model folder ``out``, which appears at once; returns it.

    UserError if a phase has no export.
    """
    temporary, old = (out.with_name(f".{out.name}.{what}") for what in ("tmp", "old"))
    for stale in (temporary, old):
        shutil.rmtree(stale, ignore_errors=True)
    temporary.mkdir(parents=True)
    for phase in phases:
        source = run / phase / "export" / WEIGHTS[phase]
        if not source.is_file():
            raise UserError(f"{source} is missing: train the phase {phase} first")
        shutil.copyfile(source, temporary / f"{phase}.safetensors")
    (temporary / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_dict(), sort_keys=False), "utf-8")
    if out.exists():
        os.replace(out, old)
    os.replace(temporary, out)
    shutil.rmtree(old, ignore_errors=True)
    return out


def same_bundle(run: Path, bundle: Path, phases: tuple[str, ...] = tuple(WEIGHTS)) -> bool:
    """Whether the bundle holds what the phases exported last."""
    for phase in phases:
        made, source = bundle / f"{phase}.safetensors", run / phase / "export" / WEIGHTS[phase]
        if not (made.is_file() and source.is_file() and made.read_bytes() == source.read_bytes()):
            return False
    return (bundle / "recipe.yaml").is_file()
