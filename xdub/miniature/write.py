"""Write a folder of miniature networks, whole or not at all, for `--set weights=DIR`."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from xdub.config import Recipe
from xdub.config.network_names import NETWORKS, NetworkFile
from xdub.config.weight_files import PAIRS, PREPARE, network_kind, used_networks
from xdub.errors import UserError
from xdub.files.atomic import atomic_folder, write_json
from xdub.miniature.networks import OTHER_NAMES, WRITERS
from xdub.miniature.sizes import TOYS, sizes_of

RECORD = "miniature.json"
"""File that marks a folder as written here, with the digest of every network."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """One network of the folder."""

    name: str
    """File or folder below the folder of weights."""
    format: str
    size: int
    """Bytes of all its files."""


def write_miniature(recipe: Recipe, out: str | Path, *, seed: int = 0) -> list[Written]:
    """Write the networks that a recipe needs with random weights into a folder that replaces an earlier miniature.

    The recipe `mini` gets toys of every known network. For another recipe the networks that it selects are written at
    its widths, with one block each. The same recipe and seed give the same bytes.

    Raise UserError if ``out`` holds anything else than an unchanged miniature.
    """
    out, sizes = Path(out), sizes_of(recipe)
    _check_free(out)
    digests, rows = {}, []
    with atomic_folder(out) as folder, torch.random.fork_rng(devices=[]):
        for entry in _needed(recipe):
            text, write = WRITERS[entry.role, entry.kind]
            name = OTHER_NAMES.get((entry.role, entry.kind), entry.names[0])
            # Every network has its own random numbers, so that its bytes do not depend on the others.
            torch.manual_seed(zlib.crc32(f"{seed} {name}".encode()))
            write(folder / name, sizes)
            digests[name] = _digest(folder / name)
            rows.append(Written(name=name, format=text, size=_size(folder / name)))
        write_json(folder / RECORD, {"recipe": recipe.name, "seed": seed, "networks": digests})
    return rows


def _needed(recipe: Recipe) -> list[NetworkFile]:
    """Return the entries of the networks to write."""
    if recipe.name in TOYS:
        return list(NETWORKS)
    uses = used_networks(recipe, (PREPARE, *recipe.phase_names, PAIRS))
    kinds: set[tuple[str, str]] = {(use.role, network_kind(use.section, use.role)) for use in uses}
    if recipe.model.text_dim is not None:
        kinds.add(("text", "umt5"))
    if recipe.model.kind == "wan":
        kinds.add(("prompt", "embedded"))
    needed = [entry for entry in NETWORKS if (entry.role, entry.kind) in kinds]
    if not needed:
        raise UserError(f"recipe {recipe.name} needs no weights: all its networks are in the package")
    return needed


def _check_free(out: Path) -> None:
    """Raise UserError unless a new folder may replace ``out``."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise UserError(f"--out {out}: is not a folder; choose another one")
    names = {path.name for path in out.iterdir()}
    if not names:
        return
    try:
        digests: dict[str, Any] = json.loads((out / RECORD).read_text("utf-8"))["networks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--out {out}: holds files that are no miniature, which would be lost; choose another folder"
        ) from error
    foreign = names - {RECORD} - digests.keys()
    foreign |= {name for name in names & digests.keys() if _digest(out / name) != digests[name]}
    if foreign:
        raise UserError(
            f"--out {out}: {', '.join(sorted(foreign))} would be lost, because it is not from `xdub weights mini`; "
            "choose another folder"
        )


def _digest(path: Path) -> str:
    """Return a digest of all files of a network."""
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(f"{file.relative_to(path.parent)}\n{file.stat().st_size}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
