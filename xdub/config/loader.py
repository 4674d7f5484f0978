"""Strict loading: every key and type is checked against the dataclasses; an unknown key lists the valid keys."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from xdub.config.phase_rules import check_new_recipe
from xdub.config.phases import PHASES, phase_facts
from xdub.config.recipe import Recipe
from xdub.config.recipe_file import read_recipe_file
from xdub.config.sections import PhaseConfig, TrainConfig
from xdub.config.syncnet_section import OWN_MEANS, TRAIN_DEFAULTS, SyncNetConfig
from xdub.errors import UserError

SYNCNET = "syncnet"
"""Key of the section `SyncNetConfig`, whose defaults precede the section `train`."""
TRAINED_SECTIONS: dict[Any, Mapping[str, Any]] = {PhaseConfig: {}, SyncNetConfig: TRAIN_DEFAULTS}
"""Section whose keys include overrides of `train` -> its own defaults of these."""


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = (), *, recorded: bool = False) -> Recipe:
    """Load a recipe from a shipped name ("tiny") or a YAML file, with `section.key=value` overrides applied.

    A file with the key ``base`` changes the recipe that the key names, see `xdub.config.recipe_file`.

    Args:
        recorded: the file was written by a finished run, so the rules of new runs (`check_new_recipe`) do not apply.

    Raises:
        UserError: the file is missing or malformed, a key is unknown, a value has the wrong type, or values do not fit
            together.
    """
    raw = read_recipe_file(name_or_path)
    _check_sections(raw)
    parsed = [parse_override(text) for text in overrides]
    # A train setting on the command line overrides the recipe's phases; a setting for one phase overrides it in turn.
    for path, value in parsed:
        phases = raw.get("phases")
        if path[0] == "train" and len(path) == 2 and path[1] not in OWN_MEANS:
            _assign(raw, (SYNCNET, path[1]), value)
        if path[0] == "train" and len(path) == 2 and isinstance(phases, dict):
            for phase in phases.values():
                if isinstance(phase, dict):
                    phase.pop(path[1], None)
    present = set(raw.get("phases") or ())
    for path, value in parsed:
        _assign(raw, path, value)
    _check_sections(raw)
    _check_new_phases(raw, present)
    _expand_homes(raw)
    recipe = recipe_from_dict(raw)
    if not recorded:
        check_new_recipe(recipe)
    return recipe


def recipe_from_dict(raw: Mapping[str, Any]) -> Recipe:
    """Return the recipe of plain values, as `Recipe.to_dict` writes them."""
    return _build(Recipe, raw, "")


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Parse `train.lr=1e-4` to (("train", "lr"), value as YAML reads it). Raise UserError for another form."""
    path, equals, value = text.partition("=")
    keys = tuple(key.strip() for key in path.split("."))
    if not equals or not all(keys):
        raise UserError(f"--set {text}: write it as section.key=value, for example --set train.lr=1e-4")
    try:
        return keys, yaml.safe_load(value)
    # PyYAML raises ValueError for a text in the form of a date that is not a date.
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"--set {text}: {value!r} is not a YAML value") from error


def _check_sections(raw: Mapping[str, Any]) -> None:
    """Raise UserError for a section of a file that is another value, before an override would blame its own key."""
    for name, kind in _hints(Recipe).items():
        section = dataclasses.is_dataclass(kind) or get_origin(kind) is Mapping
        if section and name in raw and not isinstance(raw[name], Mapping):
            raise UserError(f"{name}={_show(raw[name])} is not a section with keys and values")


def _check_new_phases(raw: Mapping[str, Any], present: Collection[str]) -> None:
    """Raise UserError for an override of a phase that the recipe does not have, unless the phase becomes complete."""
    for name, section in (raw.get("phases") or {}).items():
        required = [key for key in ("alpha", "window") if isinstance(section, dict) and key not in section]
        if name in PHASES and name not in present and required:
            settings = " ".join(f"--set phases.{name}.{key}=..." for key in required)
            raise UserError(
                f"the recipe has no phase {name}; leave out its settings, or add the phase by {settings}"
            )


def _expand_homes(raw: Mapping[str, Any]) -> None:
    """Replace ``~`` in the locations of networks, which a shell does not expand behind ``--set weights=``."""
    sections: list[Any] = [
        raw,
        *(raw.get(name) for name in ("codec", "audio", "perception", "model", "masks")),
    ]
    for section in sections:
        for key, value in section.items() if isinstance(section, dict) else ():
            located = key in ("weights", "path", "prompt", "base") or key.endswith("_path")
            if located and isinstance(value, str) and (value == "~" or value.startswith("~/")):
                section[key] = str(Path(value).expanduser())


def _assign(raw: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    if path == ("base",):
        raise UserError(f"--set base={value}: base is a key of recipe files; use --recipe {value}")
    node = raw
    for depth, key in enumerate(path[:-1]):
        # A section that the recipe leaves out may be recorded as null.
        child = node[key] = {} if node.get(key) is None else node[key]
        if not isinstance(child, dict):
            raise UserError(
                f"--set {'.'.join(path)}: {'.'.join(path[: depth + 1])} is a value, not a section"
            )
        node = child
    if value is None and path[:-1] == ("phases",):
        # As in a recipe file, null removes a phase.
        node.pop(path[-1], None)
    else:
        node[path[-1]] = value


def _keys(section: Any) -> list[str]:
    """Return the keys that a section may have in a recipe file."""
    own = [field.name for field in dataclasses.fields(section) if not field.metadata.get("derived")]
    if section in TRAINED_SECTIONS:
        own.remove("train")
        own += _keys(TrainConfig)
    return own


@cache
def _hints(section: Any) -> dict[str, Any]:
    return get_type_hints(section)


def _build(section: Any, raw: Any, path: str) -> Any:
    """Build a section's dataclass from plain values. `path` is "" or ends with a dot."""
    if not isinstance(raw, Mapping):
        raise UserError(
            f"{path.rstrip('.')}={_show(raw)} is not a section; its keys are {', '.join(_keys(section))}"
        )
    valid = _keys(section)
    for key in raw:
        if key not in valid:
            raise UserError(_unknown_key(path, str(key), valid))
    if section in TRAINED_SECTIONS:
        train = {key: value for key, value in raw.items() if key in _keys(TrainConfig)}
        raw = {key: value for key, value in raw.items() if key not in train}
        overrides = {
            key: _convert(_hints(TrainConfig)[key], value, path + key) for key, value in train.items()
        }
    values = {key: _convert(_hints(section)[key], value, path + str(key)) for key, value in raw.items()}
    if section in TRAINED_SECTIONS:
        values["train"] = {**TRAINED_SECTIONS[section], **overrides}
    for field in dataclasses.fields(section):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise UserError(f"{path}{field.name} is missing from the recipe")
    return section(**values)


def _unknown_key(path: str, key: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(key, valid, n=1)
    hint = f" (did you mean {path}{close[0]}?)" if close else ""
    return f"unknown recipe key {path}{key}{hint}; valid keys here: {', '.join(valid)}"


def _convert(kind: Any, value: Any, path: str) -> Any:
    """Convert a value to its annotated type. Raise UserError with the path if its type is wrong."""
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, f"{path}.")
    origin, args = get_origin(kind), get_args(kind)
    if origin is Mapping:
        return _phase_sections(value, path)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(arg for arg in args if arg is not type(None)), value, path)
    if origin is Literal:
        if value not in args or isinstance(value, bool):
            raise UserError(f"{path}={value} is not one of: {', '.join(map(str, args))}")
        return value
    if origin is tuple:
        return _convert_tuple(args, value, path)
    return _convert_scalar(kind, value, path)


def _phase_sections(raw: Any, path: str) -> dict[str, PhaseConfig]:
    """Return phase -> section in the order of training. Raise UserError if a required phase is missing."""
    if not isinstance(raw, Mapping):
        raise UserError(f"{path}={_show(raw)} is not a section; its keys are {', '.join(PHASES)}")
    for key in raw:
        if key not in PHASES:
            raise UserError(_unknown_key(f"{path}.", str(key), list(PHASES)))
    sections = {}
    for name in PHASES:
        if name in raw:
            sections[name] = _build(PhaseConfig, raw[name], f"{path}.{name}.")
        elif not phase_facts(name).optional:
            raise UserError(f"{path}.{name} is missing from the recipe")
    return sections


def _convert_tuple(args: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    any_length = args[-1] is Ellipsis
    if not isinstance(value, (list, tuple)) or (not any_length and len(value) != len(args)):
        form = "a list" if any_length else f"a list of {len(args)} values"
        raise UserError(f"{path}={value!r} is not {form}")
    item_kinds = [args[0]] * len(value) if any_length else args
    return tuple(_convert(kind, item, path) for kind, item in zip(item_kinds, value, strict=True))


def _convert_scalar(kind: Any, value: Any, path: str) -> Any:
    if kind is bool or isinstance(value, bool):
        if kind is not bool or not isinstance(value, bool):
            raise UserError(f"{path}={_show(value)} is not {_KIND_NAMES[kind]}")
        return value
    if kind is str:
        if not isinstance(value, str):
            raise UserError(f"{path}={_show(value)} is not a text")
        return value
    try:
        # YAML 1.1 reads 1e-4 as a text, so convert a text that spells a number.
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{path}={_show(value)} is not {_KIND_NAMES[kind]}") from None
    except OverflowError:
        raise UserError(f"{path}: a number of {len(str(value))} digits is too large") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise UserError(f"{path}={_show(value)} is not a finite number")
    if kind is int:
        if not number.is_integer():
            raise UserError(f"{path}={_show(value)} is not a whole number")
        return int(number)
    return number


_KIND_NAMES = {bool: "true or false", int: "a number", float: "a number", str: "a text"}


def _show(value: Any) -> str:
    """Return a value as a recipe file writes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
