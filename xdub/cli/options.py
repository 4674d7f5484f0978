"""Options that several verbs share, as annotations of their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from xdub.errors import UserError
from xdub.files.storage import is_uri


class Place:
    """Mark of an option whose value is a folder, a file or a URI: ``Annotated[str, typer.Option(...), Place]``.

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


def existing_folder(place: str) -> str:
    """Return a folder or URI. A folder that does not exist is an error of the command line."""
    if not is_uri(place) and not Path(place).is_dir():
        problem = "is a file" if Path(place).exists() else "does not exist"
        raise typer.BadParameter(f"Directory '{place}' {problem}.")
    return place


Clips = Annotated[
    str,
    typer.Option(
        "--data",
        callback=existing_folder,
        help="Folder or URI of clips, e.g. of `xdub prepare`, or s3://bucket/clips.",
        metavar="PLACE",
    ),
    Place,
]
Shards = Annotated[
    str,
    typer.Option(
        "--out",
        help="Folder or URI for the shards and the ledger; the same one continues an earlier run.",
        metavar="PLACE",
    ),
    Place,
]
Parallel = Annotated[
    int | None, typer.Option("--workers", min=1, help="Parallel workers; default: one for each core.")
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
