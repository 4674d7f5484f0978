"""What is submitted: a verb's own arguments, looked at here so that a mistake does not travel to the cluster."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from xdub.config import SHIPPED_MODEL, ModelFolder, load_recipe, shipped_recipes
from xdub.errors import UserError

SECRET = re.compile(r"token|secret|password|passwd|credential|api_?key|access_?key|private", re.IGNORECASE)


@dataclass(frozen=True)
class Command:
    """A verb with arguments that mean the same there as here."""

    verb: tuple[str, ...]
    arguments: tuple[str, ...]
    files: tuple[Path, ...]
    """Local files that go along; the job finds them by name in its working folder."""
    out: str | None
    """Where it writes."""


def check_command(
    verb: Sequence[str], function: Callable[..., Any], arguments: Sequence[str], files: Sequence[Path] = ()
) -> Command:
    """UserError for a recipe that does not load, an unknown option, and paths that mean nothing on another machine.

    Args:
        function: of the verb; its signature tells which arguments are paths.
        files: local files that go along; an argument that names one becomes its plain name.
    """
    kinds = _kinds(function)
    values = list(arguments)
    sent = {path.name: path for path in files}
    if len(sent) != len(files):
        raise UserError("two files of the same name cannot go along; rename one")
    recipe, settings, out = None, [], None
    for place, option, value in _options(values, kinds):
        kind = kinds[option]
        if option == "--recipe":
            recipe = value
            if value not in shipped_recipes() and Path(value).is_file():
                sent.setdefault(Path(value).name, Path(value))
                values[place] = values[place].replace(value, Path(value).name)
        elif option == "--set":
            settings.append(value)
        elif kind is Path:
            values[place] = values[place].replace(value, _there(option, value, sent))
        elif kind is ModelFolder and value != SHIPPED_MODEL and not PurePosixPath(value).is_absolute():
            raise UserError(
                f"{option} {value}: a relative path means nothing on the cluster; give an absolute one on storage "
                f"that all its machines share, or {SHIPPED_MODEL}, the shipped model"
            )
        if option == "--out":
            out = value
    if recipe is not None:
        load_recipe(recipe, settings)
    return Command(tuple(verb), tuple(values), tuple(sent.values()), out)


def check_environment(told: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` -> dict. UserError for secrets: whoever sees the dashboard sees a job's environment."""
    found = {}
    for text in told:
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise UserError(f"--env {name}: give NAME=VALUE")
        if SECRET.search(name) or re.search(r"://[^/@]+:[^/@]+@", value):
            raise UserError(
                f"--env {name} looks like a secret, and a job's environment can be read in the dashboard: set it on "
                "the cluster's machines (a Kubernetes secret, the container's environment)"
            )
        found[name] = value
    return found


def _there(option: str, value: str, sent: dict[str, Path]) -> str:
    """The path as the job will see it."""
    known = next((name for name, path in sent.items() if Path(value).resolve() == path.resolve()), None)
    if known is not None:
        return known
    if not PurePosixPath(value).is_absolute():
        raise UserError(
            f"{option} {value}: a relative path means nothing on the cluster; give an absolute one on storage that all "
            "its machines share, or send a small file along with --file"
        )
    return value


def _kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """Option -> its plain type; "" is that of the positional arguments."""
    kinds: dict[str, Any] = {}
    hints = typing.get_type_hints(function, include_extras=True)
    for name in inspect.signature(function).parameters:
        kind, *extras = typing.get_args(hints[name])
        # typer takes the first name for a default, until it looks at the signature.
        told = (
            [getattr(extras[0], "default", None), *(getattr(extras[0], "param_decls", None) or ())]
            if extras
            else []
        )
        names = [n for n in told if isinstance(n, str) and n.startswith("--")]
        names = names or [f"--{name.strip('_').replace('_', '-')}"]
        if extras and type(extras[0]).__name__ == "ArgumentInfo":
            names = [""]
        if ModelFolder in extras:
            kinds |= dict.fromkeys(names, ModelFolder)
            continue
        plain = next((k for k in (Path, bool) if k is kind or k in typing.get_args(kind)), None)
        if plain is None and any(Path in typing.get_args(part) for part in typing.get_args(kind)):
            plain = Path
        for each in names:
            kinds[each] = plain or str
    return kinds


ALIASES = {"-r": "--recipe"}


def _options(values: list[str], kinds: dict[str, Any]) -> Iterator[tuple[int, str, str]]:
    """(place of the value, option, value); positional ones as option ""."""
    place = 0
    while place < len(values):
        text = values[place]
        if not text.startswith("-") or text == "-":
            if "" in kinds:
                yield place, "", text
            place += 1
            continue
        option, equals, value = text.partition("=")
        option = ALIASES.get(option, option)
        if option not in kinds:
            known = ", ".join(sorted(name for name in kinds if name.startswith("--")))
            raise UserError(f"{option} is no option of this verb; it has {known}")
        if kinds[option] is bool:
            place += 1
        elif equals:
            yield place, option, value
            place += 1
        elif place + 1 == len(values):
            raise UserError(f"{option} needs a value")
        else:
            yield place + 1, option, values[place + 1]
            place += 2
