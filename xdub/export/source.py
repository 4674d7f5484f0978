"""Trained weights to export: in the folder of a run, in a model folder, or in the export of one phase."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xdub.config import Recipe, expert_of, load_recipe, recipe_from_dict
from xdub.errors import UserError
from xdub.files.run_folder import RunFolder
from xdub.files.tensor_headers import read_shapes
from xdub.model.bundle import RECIPE, bundle_path, bundle_weights, exported_weights

CONFIG = "config.json"
"""File of a phase's export with phase, step and recipe."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Weights of one phase."""

    phase: str
    recipe: Recipe
    file: Path
    facts: dict[str, Any] = field(default_factory=dict)
    """Step, average and version of the training, as far as they are recorded."""
    data: list[dict[str, Any]] = field(default_factory=list)
    """Summary of every data set of the training, as far as they are recorded."""

    @property
    def is_adapter(self) -> bool:
        """True if the file holds an adapter on other weights, and not a whole network."""
        return expert_of(self.phase) is not None or any(".lora_" in name for name in read_shapes(self.file))


@dataclass(frozen=True, kw_only=True)
class Source:
    """Trained weights of one model."""

    path: Path
    parts: dict[str, Part]
    """Phase -> its weights."""

    def part(self, phase: str) -> Part:
        """Return the weights of a phase. Raise UserError with the phases that there are."""
        if phase not in self.parts:
            raise UserError(f"{self.path}: has no weights of {phase!r}; it has {', '.join(self.parts)}")
        return self.parts[phase]

    @property
    def adapters(self) -> list[Part]:
        """The parts that are adapters."""
        return [part for part in self.parts.values() if part.is_adapter]

    @property
    def network(self) -> Part:
        """The part that dubs: the editor, or the generator where there is no editor."""
        for phase in ("editor", "generator"):
            if phase in self.parts:
                return self.parts[phase]
        raise UserError(f"{self.path}: has neither an editor nor a generator, only {', '.join(self.parts)}")


def open_source(path: str | Path) -> Source:
    """Find the trained weights in a run's folder, a model folder (``tiny`` is shipped), or a phase's export.

    Raise UserError if there are none.
    """
    folder = bundle_path(path)
    if not folder.is_dir():
        raise UserError(f"{path}: there is no such folder; give the --out of a training, or a model folder")
    if (folder / RECIPE).is_file():
        parts = _bundle_parts(folder)
    elif (folder / CONFIG).is_file():
        parts = [_exported(folder)]
    else:
        parts = _run_parts(RunFolder(folder))
    if not parts:
        raise UserError(
            f"{folder}: holds no trained weights; a training writes them to OUT/<phase>/export at its end"
        )
    return Source(path=folder, parts={part.phase: part for part in parts})


def _bundle_parts(folder: Path) -> list[Part]:
    recipe = load_recipe(folder / RECIPE, recorded=True)
    files = {phase: bundle_weights(folder, phase) for phase in recipe.phase_names}
    return [Part(phase=phase, recipe=recipe, file=file) for phase, file in files.items() if file.is_file()]


def _run_parts(run: RunFolder) -> list[Part]:
    folders = [path.parent for path in sorted(run.path.glob(f"*/export/{CONFIG}"))]
    parts = [_exported(folder, run) for folder in folders]
    order = {name: number for number, name in enumerate(("generator", "editor"))}
    # A SyncNet is no part of the model.
    networks = [part for part in parts if part.phase in part.recipe.phase_names]
    return sorted(networks, key=lambda part: (order.get(part.phase, 2), part.phase))


def _exported(folder: Path, run: RunFolder | None = None) -> Part:
    """Return the weights of a phase's export; its facts are in the phase's folder."""
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        phase, recipe = str(config["phase"]), recipe_from_dict(config["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder / CONFIG}: does not describe the export of a phase; train again") from error
    run = run if run is not None else RunFolder(folder.parent.parent)
    file = folder / exported_weights(run, phase).name
    if not file.is_file():
        raise UserError(f"{folder}: has no {file.name}; train the phase {phase} again")
    facts = {key: config[key] for key in ("step", "averaged", "xdub") if key in config}
    return Part(phase=phase, recipe=recipe, file=file, facts=facts, data=_data(run, phase))


def _data(run: RunFolder, phase: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(run.phase(phase).data_summary.read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [entry for entry in content if isinstance(entry, dict)] if isinstance(content, list) else []
