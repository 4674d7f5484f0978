"""A verb with its arguments, checked before it is sent so that a mistake costs no job on the cluster."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath

from xdub.config import (
    IMPORT,
    PAIRS,
    PREPARE,
    SHIPPED_MODEL,
    SPEAKERS,
    TRAINABLE,
    Recipe,
    base_files,
    is_packaged,
    load_recipe,
    network_settings,
    published_recipes,
    shipped_recipes,
)
from xdub.config.weight_files import HUB_NAME
from xdub.errors import UserError
from xdub.files.storage import is_uri
from xdub.headers import check_networks

SECRET = re.compile(r"token|secret|password|passwd|credential|api_?key|access_?key|private", re.IGNORECASE)
"""Names of environment variables that hold secrets."""

STOP_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
"""Environment variable from which Ray reads how many seconds a stopped job has before Ray kills it."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""Names of runs. A job's id is part of a URL, of Ray's file names and of command lines."""
UNSENDABLE = {".gitignore", ".rayignore", "__pycache__"}
"""Names of files by which Ray decides what it sends."""
FILE_BYTES = 90_000_000
"""Most bytes of all files that are sent; the dashboard refuses more than 100 MiB with the code."""


@dataclass(frozen=True)
class Command:
    """A verb with arguments that mean the same on the cluster as on this machine."""

    verb: tuple[str, ...]
    arguments: tuple[str, ...]
    files: tuple[Path, ...]
    """Local files that are sent too; the job finds them by name in its working folder."""
    out: str | None
    """Value of ``--out``: the path that the job writes; of ``--data`` for the verbs `IN_PLACE`."""


IN_PLACE = ("encode", "speakers")
"""Verbs that write into the data set that they read."""
DEFAULT_RECIPE = {verb: "tiny" for verb in ("render", "prepare", "import-pairs", "speakers")}
"""Recipe of the verbs that need no ``--recipe``."""


class Kind(Enum):
    """Kind of an option's value."""

    FLAG = "flag"
    """An option without a value."""
    TEXT = "text"
    """A value that means the same on every machine."""
    PATH = "path"
    """A path on the cluster, or the name of a file that is sent."""
    MODEL = "model"
    """`SHIPPED_MODEL`, the path of a model on the cluster, or a published model's NAME:DIR."""


def check_command(
    verb: Sequence[str], kinds: Mapping[str, Kind], arguments: Sequence[str], files: Sequence[Path] = ()
) -> Command:
    """Check a verb's arguments, and rename those that name a local file which is sent.

    Args:
        verb: words that select the verb, such as ``eval score``.
        kinds: kind of every option of the verb; the key "" has that of the positional arguments.
        files: local files to send.

    Raises UserError for a recipe that does not load, an unknown option, and a path that only this machine has.
    """
    values = list(arguments)
    for value in values:
        _check_text(value)
    sent = {path.name: path for path in files}
    if len(sent) != len(files):
        raise UserError("two files of the same name cannot be sent; rename one")
    recipe, settings, out = DEFAULT_RECIPE.get(verb[0]), [], None
    for index, option, value in _options(values, kinds):
        kind = kinds[option]
        if option in ("--recipe", "-r"):
            recipe = value
            if value not in (*shipped_recipes(), *published_recipes()) and Path(value).is_file():
                _send_recipe(Path(value), sent)
                values[index] = values[index].replace(value, _as_argument(Path(value).name))
        elif option == "--set":
            settings.append(value)
        elif kind is Kind.PATH:
            values[index] = values[index].replace(value, _path_on_cluster(option, value, sent))
        elif kind is Kind.MODEL and Path(value).name in sent:
            values[index] = values[index].replace(value, _path_on_cluster(option, value, sent))
        elif kind is Kind.MODEL and value != SHIPPED_MODEL and not _folder(value).is_absolute():
            raise UserError(
                f"{option} {value}: a relative path means nothing on the cluster; use an absolute one on storage "
                f"that all its machines share, or {SHIPPED_MODEL}, the shipped model"
            )
        if option == "--out" or (option == "--data" and verb[0] in IN_PLACE):
            out = value
    _check_files(sent.values())
    if recipe is not None:
        _check_networks(verb, values, load_recipe(recipe, settings))
    return Command(tuple(verb), tuple(values), tuple(sent.values()), out)


def _folder(model: str) -> PurePosixPath:
    """Return the folder of a model; a published model has a name and a colon before its folder."""
    return PurePosixPath(model.rpartition(":")[2])


def check_name(name: str) -> str:
    """Return the name of a run. UserError for a name that cannot be part of a job's id."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"--name {name!r}: a name has 1 to 100 letters of A-Z and a-z, digits, `_`, `.` and `-`, "
            "and begins with a letter or digit"
        )
    return name


def job_name(command: Command) -> str:
    """Return a name such as ``train-lip-myrun``; a submission that continues a job has the same name.

    A name with other characters, or a long one, is shortened to what `check_name` allows and ends with a hash.
    """
    phase = command.arguments[:1] if command.verb == ("train",) else ()
    text = "-".join([*command.verb, *phase, *([Path(command.out).name] if command.out else [])])
    if NAME.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', text)[:60].rstrip('-')}-{digest}"


def check_environment(assignments: Sequence[str]) -> dict[str, str]:
    """Parse ``NAME=VALUE`` texts. UserError for secrets, because the dashboard shows a job's environment."""
    environment = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        _check_text(text)
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise UserError(f"--env {name!r}: use NAME=VALUE")
        if SECRET.search(name) or re.search(r"://[^/@]+:[^/@]+@", value):
            raise UserError(
                f"--env {name} looks like a secret, and a job's environment can be read in the dashboard: set it on "
                "the cluster's machines (a Kubernetes secret, the container's environment)"
            )
        if name == STOP_VARIABLE and not re.fullmatch(r"[1-9]\d{0,5}", value, re.ASCII):
            raise UserError(f"--env {text}: use a whole number of seconds")
        environment[name] = value
    return environment


def _check_text(text: str) -> None:
    """Raise UserError for bytes that are no UTF-8, which a job's description cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{text!r} is not UTF-8 text, so it cannot be sent; rename the file") from error


def _check_files(files: Iterable[Path]) -> None:
    total = 0
    for path in files:
        _check_text(path.name)
        if path.name in UNSENDABLE:
            raise UserError(f"{path}: a file of this name cannot be sent; rename it")
        total += path.stat().st_size
    if total > FILE_BYTES:
        raise UserError(
            f"the files to send have {total / 1e6:.0f} MB, and {FILE_BYTES / 1e6:.0f} MB is the most; "
            "copy large files to storage that all machines of the cluster share"
        )


def _check_networks(verb: Sequence[str], values: Sequence[str], recipe: Recipe) -> None:
    """Raise UserError for networks that the job would miss: without a path, with a relative one, or of a wrong kind.

    Only files that this machine has, too, can be checked for their kind.
    """
    stages = {
        "prepare": [PREPARE],
        "import-pairs": [IMPORT],
        "speakers": [SPEAKERS],
        "train": [value for value in values[:1] if value in TRAINABLE],
        "pairs": [PAIRS],
        "bootstrap": [*recipe.phase_names, PAIRS],
        "encode": recipe.phase_names,
        # The table of the cluster's own files is the result of the job of `doctor`; other verbs load no networks.
    }.get(verb[0], [])
    for key, path in network_settings(recipe).items():
        if not (PurePosixPath(path).is_absolute() or HUB_NAME.fullmatch(path) or is_packaged(path)):
            raise UserError(
                f"{key}={path}: a relative path means nothing on the cluster; use an absolute one on storage that all "
                "its machines share"
            )
    if stages:
        check_networks(recipe, stages, on_this_machine=False)


def _send_recipe(path: Path, sent: dict[str, Path]) -> None:
    """Add a recipe file and its bases, which the job finds in one folder."""
    for file in (path, *base_files(path)):
        if file.parent != path.parent or sent.setdefault(file.name, file).resolve() != file.resolve():
            raise UserError(
                f"{file}: {path} and its bases are sent as files of one folder; move the file beside {path.name}, "
                "under a name that no other sent file has"
            )


def _as_argument(name: str) -> str:
    """Return a file's name so that it is not read as an option."""
    return f"./{name}" if name.startswith("-") else name


def _path_on_cluster(option: str, value: str, sent: Mapping[str, Path]) -> str:
    """Return the path by which the job finds a file or folder."""
    name = next((name for name, path in sent.items() if Path(value).resolve() == path.resolve()), None)
    if name is not None:
        return _as_argument(name)
    if not is_uri(value) and not PurePosixPath(value).is_absolute():
        raise UserError(
            f"{option} {value}: a relative path means nothing on the cluster; use an absolute one on storage that all "
            "its machines share, or send a small file with --file"
        )
    return value


def _options(values: Sequence[str], kinds: Mapping[str, Kind]) -> Iterator[tuple[int, str, str]]:
    """Yield index of the value, option and value; positional arguments have the option ""."""
    index = 0
    while index < len(values):
        text = values[index]
        index += 1
        if not text.startswith("-") or text == "-":
            if "" in kinds:
                yield index - 1, "", text
            continue
        option, equals, value = text.partition("=")
        if option not in kinds:
            names = ", ".join(sorted(name for name in kinds if name.startswith("--")))
            raise UserError(f"{option} is not an option of this verb; its options are {names}")
        if kinds[option] is Kind.FLAG:
            continue
        if equals:
            yield index - 1, option, value
        elif index == len(values):
            raise UserError(f"{option} needs a value")
        else:
            yield index, option, values[index]
            index += 1
