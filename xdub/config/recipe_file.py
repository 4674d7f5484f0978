"""Recipe files: YAML mappings, shipped or a user's, each of which may name the recipe that it changes (``base``).

    base: xdub-1b          # a shipped name, or a file relative to this file's folder
    name: mine
    phases: {lip: {steps: 100}}

Sections are merged key by key, and lists and other values are replaced. An empty value (null) removes a section of the
base, whose keys then have their defaults.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from xdub.config.recipe import Recipe
from xdub.errors import UserError

BASE = "base"
"""Key of a file that names the recipe which the file changes."""
PUBLISHED = "published"
"""Folder of the recipes of published models in the package."""


def shipped_recipes() -> list[str]:
    """Return the names of the recipes in the package."""
    files = resources.files("xdub.recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def published_recipes() -> list[str]:
    """Return the names of the recipes of models that others published, which have no results of ours."""
    files = (resources.files("xdub.recipes") / PUBLISHED).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def read_recipe_file(name_or_path: str | Path) -> dict[str, Any]:
    """Return the keys of a recipe with those of its bases, without the key ``base``.

    Raise UserError for a missing or malformed file, and for a recipe that is its own base.
    """
    merged: dict[str, Any] = {}
    # The first base comes first, so that a section which a file removes does not return from an earlier base.
    for _, raw in reversed(list(_chain(name_or_path))):
        merged = _merge(merged, raw)
    merged.pop(BASE, None)
    return merged


def base_files(path: str | Path) -> list[Path]:
    """Return the files that a recipe file is based on, the nearest first; shipped recipes are no files."""
    return [source for source, _ in _chain(path) if isinstance(source, Path)][1:]


def _chain(name_or_path: str | Path) -> Iterator[tuple[str | Path, dict[str, Any]]]:
    """Yield (shipped name or path, keys) of a recipe, then of its base, and so on."""
    source = _find(str(name_or_path), Path())
    visited: list[str | Path] = []
    while True:
        identity = source.resolve() if isinstance(source, Path) else source
        if identity in visited:
            raise UserError(f"{source}: the recipe is its own base; change the key base of one of its files")
        visited.append(identity)
        raw = _read(source)
        yield source, raw
        base = raw.get(BASE)
        if base is None:
            return
        if not isinstance(base, str):
            raise UserError(f"{_title(source)}: base={base!r} is not the name of a recipe or of a YAML file")
        try:
            source = _find(base, source.parent if isinstance(source, Path) else Path())
        except UserError as error:
            raise UserError(f"{_title(source)}: base: {error}") from error


def _find(name: str, folder: Path) -> str | Path:
    """Return a shipped recipe's name unchanged, or the path of a file below ``folder``."""
    if name in (*shipped_recipes(), *published_recipes()):
        return name
    path = folder / name
    if not path.is_file():
        names = ", ".join((*shipped_recipes(), *published_recipes()))
        raise UserError(f"no recipe {str(path)!r}: give a YAML file or one of: {names}")
    return path


def _read(source: str | Path) -> dict[str, Any]:
    try:
        if isinstance(source, Path):
            text = source.read_text("utf-8")
        else:
            recipes = resources.files("xdub.recipes")
            folder = recipes if source in shipped_recipes() else recipes / PUBLISHED
            text = (folder / f"{source}.yaml").read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is not a text file: give a YAML recipe") from error
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{_title(source)} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        keys = ", ".join(Recipe.__dataclass_fields__)
        raise UserError(f"{_title(source)} is not a recipe: it must be a YAML mapping with keys {keys}")
    return raw


def _title(source: str | Path) -> str:
    return str(source) if isinstance(source, Path) else f"recipe {source}"


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the base with the changes, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        if value is None and isinstance(below, dict):
            del merged[key]
            continue
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
