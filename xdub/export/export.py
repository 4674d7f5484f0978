"""Export of a trained model: its adapters or its whole network in one form, with a model card."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

import xdub
from xdub.config import SHIPPED_MODEL, expert_of
from xdub.errors import UserError
from xdub.export.adapters import read_adapter, write_comfy, write_diffusers, write_peft
from xdub.export.card import LICENCE_ID, Card, bases_of, public_recipe, write_card
from xdub.export.source import Part, Source, open_source
from xdub.export.usage import Loaded, usage
from xdub.export.whole import merged_backbone, write_whole
from xdub.files.atomic import atomic_folder, write_json
from xdub.files.content import file_sha256
from xdub.model.adapter_export import RECORD, AdapterExport, adapter_record
from xdub.model.bundle import bundle_path
from xdub.perception.open_models.entry import OpenModel

Form = Literal["peft", "diffusers-lora", "comfy-lora", "merged", "diffusers"]
"""Form of an export: three of adapters, two of a whole network."""
FORMS: tuple[Form, ...] = get_args(Form)
"""All forms."""
EDITOR = "editor"
"""Phase whose network the experts change."""
WHOLE = ("merged", "diffusers")
"""Forms of a whole network."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Result of an export."""

    folder: Path
    files: Mapping[str, int]
    """File below the folder -> bytes."""
    phases: tuple[str, ...]


def export_weights(
    path: str | Path,
    out: str | Path,
    form: Form,
    *,
    phase: str | None = None,
    base: str | None = None,
    licence: str | None = None,
    scores: Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> Exported:
    """Write trained weights in a form, with a model card, as a folder that replaces an earlier export as a whole.

    Args:
        path: folder of a run, a model folder, or the export of a phase.
        phase: phase to export. None: all adapters, or the network that dubs.
        base: name of the base in the registry. None: it is recognised by its tensors.
        licence: identifier of the licence of the exported weights. None: that of the base.
        scores: JSON object of metrics for the card, such as the output of `xdub eval score --json`.
        dtype: number format of a whole network; adapters keep theirs.

    Raises:
        UserError: the source lacks the weights, the form does not exist for the network, the base is not recognised,
            or ``out`` holds other files.
    """
    if licence is not None and not LICENCE_ID.fullmatch(licence):
        raise UserError(f"--licence {licence}: use an identifier such as apache-2.0 or cc-by-nc-4.0")
    out, source = Path(out), open_source(path)
    parts, values = _chosen(source, form, phase), _read_scores(scores)
    bases = bases_of(parts[-1].recipe, base)
    _check_free(out)
    with atomic_folder(out) as folder:
        adapters: list[AdapterExport] = []
        if form in WHOLE:
            model = merged_backbone(source, parts[-1].phase)
            kind = parts[-1].recipe.model.kind
            names = write_whole(model, folder, kind, diffusers=form == "diffusers", dtype=dtype)
            loaded = [Loaded(phase=parts[-1].phase, folder=".", files=names)]
        else:
            adapters = [_adapter(part, source, folder, parts, bases) for part in parts]
            written = [
                _write_adapter(part, adapter.folder, form, _repo(part, bases))
                for part, adapter in zip(parts, adapters, strict=True)
            ]
            loaded = [
                _loaded(adapter, folder, own, bases) for adapter, own in zip(adapters, written, strict=True)
            ]
            names = [each.path(name) for each in loaded for name in each.files]
        files = {name: (folder / name).stat().st_size for name in names}
        code = usage(form, loaded)
        card = Card(
            form=form, parts=parts, files=files, usage=code, bases=bases, licence=licence, scores=values
        )
        write_card(card, folder)
        record: dict[str, Any] = {
            "xdub": xdub.__version__,
            "form": form,
            "phases": [part.phase for part in parts],
            "files": {name: file_sha256(folder / name) for name in names},
        }
        if adapters:
            record["adapters"] = [
                adapter_record(adapter, folder, public_recipe(adapter.recipe)) for adapter in adapters
            ]
        write_json(folder / RECORD, record)
    return Exported(folder=out, files=files, phases=tuple(part.phase for part in parts))


def _repo(part: Part, bases: Sequence[OpenModel]) -> str | None:
    """Return the repository of the weights that an adapter changes; an expert changes the trained editor."""
    return bases[0].repo if bases and expert_of(part.phase) is None else None


def _adapter(
    part: Part, source: Source, folder: Path, parts: Sequence[Part], bases: Sequence[OpenModel]
) -> AdapterExport:
    """Return where an adapter is written, and its base as far as it has a name."""
    base = None
    if expert_of(part.phase) is None:
        base = bases[0].role if len(bases) == 1 else None
    elif any(other.phase == EDITOR for other in parts):
        base = EDITOR
    elif source.path == bundle_path(SHIPPED_MODEL):
        base = SHIPPED_MODEL
    target = folder / part.phase if len(parts) > 1 else folder
    return AdapterExport(folder=target, phase=part.phase, recipe=part.recipe, base=base)


def _loaded(adapter: AdapterExport, folder: Path, files: Sequence[str], bases: Sequence[OpenModel]) -> Loaded:
    """Return the facts of an adapter for the code that loads it."""
    home = str(adapter.folder.relative_to(folder))
    if expert_of(adapter.phase) is not None:
        return Loaded(phase=adapter.phase, folder=home, files=files, base=adapter.base)
    return Loaded(
        phase=adapter.phase,
        folder=home,
        files=files,
        base=adapter.base,
        placeholder="BASE",
        placeholder_meaning="the folder of " + " or ".join(model.role for model in bases),
        diffusers=bases[0].diffusers if bases else None,
    )


def _chosen(source: Source, form: Form, phase: str | None) -> list[Part]:
    """Return the phases to export."""
    if phase is not None:
        part = source.part(phase)
        if form not in WHOLE and not part.is_adapter:
            raise UserError(f"--phase {phase}: is a whole network, not an adapter; use --form merged")
        return [part]
    if form in WHOLE:
        return [source.network]
    if not source.adapters:
        raise UserError(f"{source.path}: has no adapter, but whole networks; use --form merged")
    return source.adapters


def _write_adapter(part: Part, target: Path, form: Form, base: str | None) -> list[str]:
    """Write one adapter into a folder, and return the names of its files."""
    target.mkdir(exist_ok=True)
    adapter = read_adapter(part)
    if form == "peft":
        return write_peft(adapter, target, base)
    if part.recipe.model.kind != "wan":
        raise UserError(
            f"--form {form}: neither diffusers nor ComfyUI has the paper's network; use --form peft"
        )
    return write_diffusers(adapter, target) if form == "diffusers-lora" else write_comfy(adapter, target)


def _read_scores(path: Path | None) -> dict[str, float]:
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--scores {path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(
            f"--scores {path}: is not a JSON object of metrics, as `xdub eval score --json` prints it"
        )
    return {name: float(value) for name, value in content.items() if _is_score(value)}


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_free(out: Path) -> None:
    """Raise UserError unless an export may replace ``out``."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"--out {out}: is not a folder; choose another one")
    if out.is_dir() and any(out.iterdir()) and not (out / RECORD).is_file():
        raise UserError(
            f"--out {out}: holds files that are no export, which would be lost; choose another folder"
        )
