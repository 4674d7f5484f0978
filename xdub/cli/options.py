"""Options that several verbs share, as annotations of their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from xdub.errors import UserError
from xdub.files.storage import is_uri
from xdub.pool import Workers


class PathOrUri:
    """Mark of an option whose value is a folder, a file or a URI: ``Annotated[str, typer.Option(...), PathOrUri]``.

    `xdub submit` reads the mark: a path must exist on the cluster.
    """


Recipe = Annotated[
    str,
    typer.Option(
        "--recipe",
        "-r",
        help="A recipe, e.g. tiny, xdub-1b, wan-5b-24gb or tbdub-lora-24gb, or a YAML file; an unknown name lists all.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override a value of the recipe: section.key=value. Repeatable.", metavar="A.B=C"
    ),
]


def existing_folder(folder: str) -> str:
    """Return a folder or URI. A folder that does not exist is an error of the command line."""
    if not is_uri(folder) and not Path(folder).is_dir():
        problem = "is a file" if Path(folder).exists() else "does not exist"
        raise typer.BadParameter(f"Directory '{folder}' {problem}.")
    return folder


def existing_folders(folders: list[str] | None) -> list[str] | None:
    """Return folders and URIs, each checked by `existing_folder`."""
    return folders and [existing_folder(folder) for folder in folders]


Clips = Annotated[
    str,
    typer.Option(
        "--data",
        callback=existing_folder,
        help="Folder or URI of clips, e.g. of `xdub prepare`, or s3://bucket/clips.",
        metavar="DIR",
    ),
    PathOrUri,
]
Shards = Annotated[
    str,
    typer.Option(
        "--out",
        help="Folder or URI for the shards and the ledger; the same one continues an earlier run.",
        metavar="DIR",
    ),
    PathOrUri,
]
Parallel = Annotated[
    str | None,
    typer.Option(
        "--workers",
        help="Number of workers, by default one for each core; 1 runs in this process; MIN:MAX, such as 0:8, follows "
        "the queue.",
        metavar="N|MIN:MAX",
    ),
]
GpuWorkers = Annotated[
    str,
    typer.Option(
        "--workers",
        help="Number of workers, each with a GPU if the cluster has any; MIN:MAX, such as 0:8, follows the queue.",
        metavar="N|MIN:MAX",
    ),
]
AcceptLicence = Annotated[
    list[str] | None,
    typer.Option(
        "--accept-licence",
        help="Accept the licence of a published model, once: xdub-public, tbdub-teacher or tbdub-student. Repeatable.",
        metavar="NAME",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed; the same seed repeats the result.")]


def parallel(text: str | None) -> int | Workers | None:
    """Parse `Parallel`: a number, a range, or None for the default. UserError for another text."""
    if text is None:
        return None
    workers = Workers.parse(text, cpus=1)
    return workers if ":" in text else workers.most


def resources(assignments: Sequence[str]) -> dict[str, float]:
    """Parse Ray resources such as ``pairgen=1``. UserError for a text that is no NAME=NUMBER."""
    amounts = {}
    for text in assignments:
        name, _, amount = text.partition("=")
        try:
            amounts[name] = float(amount)
        except ValueError:
            raise UserError(f"--resource {text}: use NAME=NUMBER, such as pairgen=1") from None
    return amounts
