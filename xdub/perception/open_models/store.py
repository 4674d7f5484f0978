"""Open models on this machine: their folders and states, and the download of the missing files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xdub.errors import UserError
from xdub.files.atomic import write_json
from xdub.files.content import cached_sha256
from xdub.files.lock import exclusive
from xdub.files.tensor_headers import read_shapes
from xdub.files.tensors import signature
from xdub.perception.open_models.download import download
from xdub.perception.open_models.entry import ModelFile, OpenModel
from xdub.perception.open_models.hub import is_offline
from xdub.perception.open_models.shapes import Shapes, first_difference
from xdub.perception.open_models.table import OPEN_MODELS, open_model
from xdub.perception.weight_folders import search_folders, weights_folder
from xdub.progress import Report, ignore

RECORD = "downloaded.json"
"""File of a model's folder with the sha256 of every file that was downloaded there."""


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """The folder of a model on this machine, and the state of its files."""

    model: OpenModel
    path: Path | None
    state: Literal["ok", "absent", "incomplete", "damaged"]
    problem: str = ""
    """Cause of a state other than "ok", in words."""


def list_models(into: Path | None = None, *, hashed: bool = False) -> list[ModelStatus]:
    """Return the state of every open model, without downloads, see `status_of_model`.

    ``into`` is the folder that holds a folder of each model; default: the folders of weights.
    """
    return [
        status_of_model(model, folder=None if into is None else into / model.role, hashed=hashed)
        for model in OPEN_MODELS
    ]


def status_of_model(model: OpenModel, *, folder: Path | None = None, hashed: bool = False) -> ModelStatus:
    """Look for a model in a folder, by default in all folders of weights, and check names, sizes and signature.

    With ``hashed`` every file is read and compared with its sha256.
    """
    folders = [folder] if folder is not None else [root / model.role for root in search_folders()]
    present = next((path for path in folders if path.is_dir()), None)
    if present is None:
        return ModelStatus(model=model, path=None, state="absent", problem="not on this machine")
    missing = [file.name for file in model.files if not (present / file.name).is_file()]
    if missing:
        problem = f"{len(missing)} of {len(model.files)} files are missing, such as {missing[0]}"
        return ModelStatus(model=model, path=present, state="incomplete", problem=problem)
    record = _record(present)
    for file in model.files:
        if problem := _damage(present / file.name, file, record.get(file.name), hashed):
            return ModelStatus(model=model, path=present, state="damaged", problem=problem)
    if problem := signature_problem(model, present):
        return ModelStatus(model=model, path=present, state="damaged", problem=problem)
    return ModelStatus(model=model, path=present, state="ok")


def required_folder(role: str) -> Path:
    """Return the folder of a complete model. Raise UserError with the command that downloads it."""
    model = open_model(role)
    status = status_of_model(model)
    if status.state == "ok" and status.path is not None:
        return status.path
    raise UserError(
        f"{status.path or role}: {status.problem}; `xdub weights fetch {role}` downloads {model.size / 1e9:.1f} GB"
    )


def fetch_model(
    model: OpenModel,
    *,
    into: Path | None = None,
    offline: bool = False,
    report: Report = ignore,
) -> Path:
    """Return the folder of a model whose files are all verified; download the missing and the damaged ones.

    Args:
        into: folder in which the model's folder is looked for and created; default: the folders of weights.
        offline: fail instead of using the network; HF_HUB_OFFLINE=1 has the same effect.
        report: gets the megabytes so far, of all files.

    Raises:
        UserError: files are missing and downloads are off, a server refuses a file or sends wrong content, the tensors
            are not those of the model, or another process downloads the model.
    """
    folder = _target(model, into)
    needed = _needed(model, folder, report)
    if needed and (offline or is_offline()):
        raise UserError(
            f"{folder}: {len(needed)} of {len(model.files)} files of {model.role} are missing or damaged, such as "
            f"{needed[0].name}, and downloads are off; run `xdub weights fetch {model.role}` online, or copy them there"
        )
    if needed:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be created ({error.strerror}); choose another --to") from error
        with exclusive(folder / ".lock", busy=f"{folder}: another process downloads {model.role} right now"):
            _download_all(model, folder, needed, report)
    if problem := signature_problem(model, folder):
        raise UserError(f"{folder}: {problem}")
    return folder


def signature_problem(model: OpenModel, folder: Path) -> str | None:
    """Return why the tensors in a folder are not those of a model, with the first difference; None if they are."""
    if model.signature is None:
        return None
    try:
        shapes: Shapes = {}
        for name in model.signed:
            shapes |= read_shapes(folder / name)
    except UserError as error:
        return str(error)
    value = signature(shapes)
    if value == model.signature:
        return None
    difference = first_difference(shapes, model.shapes()) if model.shapes is not None else None
    return (
        f"its {len(shapes)} tensors are not those of {model.role} (signature {value}, expected {model.signature})"
        + (f": {difference}" if difference else "")
    )


def _needed(model: OpenModel, folder: Path, report: Report) -> list[ModelFile]:
    """Return the files to download: those that are missing or damaged, after a look at every byte of the others."""
    record, needed = _record(folder), []
    for file in model.files:
        path = folder / file.name
        if path.is_file():
            report(0, None, f"checking {file.name}")
        if not path.is_file() or _damage(path, file, record.get(file.name), hashed=True):
            needed.append(file)
    if not needed and signature_problem(model, folder):
        # Files without any hash may be damaged in their headers. Others are as the server has them.
        needed = [
            file
            for file in model.files
            if file.name in model.signed
            and file.sha256 is None
            and (file.name not in record or not _is_readable(folder / file.name))
        ]
    return needed


def _is_readable(path: Path) -> bool:
    """Return whether a file has the header of safetensors; a mirror may have sent a web page in its place."""
    try:
        read_shapes(path)
    except UserError:
        return False
    return True


def _download_all(model: OpenModel, folder: Path, needed: list[ModelFile], report: Report) -> None:
    """Download files one after another and record their hashes."""
    total, finished = sum(file.size for file in needed) / 1e6, 0.0
    for number, file in enumerate(needed, 1):
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = f"MB, {file.name} ({number} of {len(needed)})"
        digest = _copied(model, file, folder)
        if digest is None:
            remote = file.source.remote(file.size if file.exact else None, file.sha256)
            digest = download(remote, target, report=_shifted(report, finished, total, text))
        write_json(folder / RECORD, {**_record(folder), file.name: digest})
        finished += file.size / 1e6


def _copied(model: OpenModel, file: ModelFile, folder: Path) -> str | None:
    """Link or copy a file that another model beside this one has, and return its sha256; None if none has it.

    X-Dub and both TBDubs share the autoencoder, and both TBDubs share HuBERT.
    """
    for other in OPEN_MODELS:
        for twin in other.files if other.role != model.role else ():
            home = folder.parent / other.role
            expected = file.sha256 or _record(home).get(twin.name)
            path = home / twin.name
            if twin.source != file.source or expected is None or not path.is_file():
                continue
            if cached_sha256(path) != expected:
                continue
            target = folder / file.name
            target.unlink(missing_ok=True)
            try:
                os.link(path, target)
            except OSError:
                # Another file system, or one without links. A killed copy must not look like a whole file.
                unfinished = target.with_name(f".{target.name}.copy")
                shutil.copyfile(path, unfinished)
                unfinished.replace(target)
            return expected
    return None


def _shifted(report: Report, before: float, whole: float, name: str) -> Report:
    """Return the report of one file in bytes as a part of ``report``, which counts the ``whole`` megabytes."""

    def shifted(done: float, total: float | None = None, text: str = "") -> None:
        report(round(before + done / 1e6, 1), round(whole, 1), name)

    return shifted


def _target(model: OpenModel, into: Path | None) -> Path:
    """Return the folder in which a model is completed: an existing one, or a new one in the cache."""
    if into is not None:
        return into / model.role
    present = status_of_model(model).path
    return present if present is not None and os.access(present, os.W_OK) else weights_folder() / model.role


def _damage(path: Path, file: ModelFile, recorded: str | None, hashed: bool) -> str | None:
    """Return what is wrong with a file; None if nothing is."""
    size = path.stat().st_size
    if file.exact and size != file.size:
        return f"{file.name} has {size:,} bytes, not {file.size:,}"
    expected = file.sha256 or recorded
    if hashed and expected is not None and (digest := cached_sha256(path)) != expected:
        return f"{file.name} is damaged (sha256 {digest[:16]}..., expected {expected[:16]}...)"
    return None


def _record(folder: Path) -> Mapping[str, str]:
    """Return file -> sha256 of the earlier downloads into a folder."""
    try:
        content = json.loads((folder / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: value for name, value in content.items() if isinstance(value, str)}
