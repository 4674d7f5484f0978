"""Adapters that `xdub export` wrote, as weights on their base; all forms hold the same matrices under other names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from xdub.config import Recipe, recipe_from_dict
from xdub.errors import UserError
from xdub.files.weight_folder import WeightFolder
from xdub.perception.open_models.wan_config import read_json_object
from xdub.perception.open_models.wan_names import original_name

RECORD = "xdub_export.json"
"""File that marks a folder as an export, with the sha256 of every file, and with recipe and base of every adapter."""
PEFT, DIFFUSERS = "base_model.model.", "transformer."
"""Prefixes of the names of peft and of diffusers; those of ComfyUI are known to `original_name`."""
MATRICES = (".lora_A.weight", ".lora_B.weight")
"""Endings of an adapter's matrices in all forms."""


@dataclass(frozen=True, kw_only=True)
class AdapterExport:
    """One adapter of an export."""

    folder: Path
    """Folder of its files."""
    phase: str
    recipe: Recipe
    base: str | None
    """Name of the base in the registry, `tiny`, or the folder of another adapter. None: the export does not know it."""

    @property
    def weights(self) -> WeightFolder:
        """The adapter and the tensors that were trained beside it, under the names of the network."""
        return _ExportedWeights(self.folder, tuple(sorted(self.folder.glob("*.safetensors"))))


def adapter_record(part: AdapterExport, root: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of an adapter in `RECORD`; ``recipe`` has the public values of its recipe."""
    folder = str(part.folder.relative_to(root))
    return {"folder": folder, "phase": part.phase, "base": part.base, "recipe": recipe}


def find_adapter_export(path: Path) -> AdapterExport | None:
    """Return the adapter in a folder that `xdub export` wrote; None for a folder of another kind.

    Raise UserError for a folder with several adapters in folders of their own, and for a damaged record.
    """
    if not path.is_dir():
        return None
    parts = _recorded(path)
    if len(parts) > 1:
        names = ", ".join(part.phase for part in parts)
        raise UserError(f"{path}: holds several adapters; name the folder of one of them: {names}")
    if parts:
        return parts[0]
    above = _recorded(path.absolute().parent)
    return next((part for part in above if part.folder == path.absolute()), None)


def _recorded(home: Path) -> list[AdapterExport]:
    """Return the adapters that the record of a folder names; [] without a record, and for whole networks."""
    entries = read_json_object(home / RECORD).get("adapters", [])
    try:
        return [_adapter(home, entry, [other["folder"] for other in entries]) for entry in entries]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{home / RECORD}: does not describe an export; export again") from error


def _adapter(home: Path, entry: dict[str, Any], folders: list[str]) -> AdapterExport:
    base = entry["base"]
    return AdapterExport(
        folder=home / entry["folder"],
        phase=entry["phase"],
        recipe=recipe_from_dict(entry["recipe"]),
        # An expert's editor may be another adapter of the same export.
        base=str(home / base) if base in folders else base,
    )


class _ExportedWeights(WeightFolder):
    """Files of an adapter in any form, read under the names that a training gives its tensors."""

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of all tensors."""
        shapes = super().shapes
        return {renamed: shape for name, shape in shapes.items() if (renamed := _trained_name(name))}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) file by file."""
        for name, value in super().tensors():
            if renamed := _trained_name(name):
                yield renamed, value


def _trained_name(name: str) -> str | None:
    """Return the name of a tensor in a training's export; None for alpha, which the recipe states."""
    if name.endswith(".alpha"):
        return None
    if name.startswith(PEFT):
        name = name.removeprefix(PEFT)
    elif name.endswith(MATRICES):
        name = original_name(name.removeprefix(DIFFUSERS))
    return name.removesuffix(".weight") if name.endswith(MATRICES) else name
