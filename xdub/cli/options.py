"""Options that several verbs share, as annotations of their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from xdub.errors import UserError

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
Clips = Annotated[
    Path,
    typer.Option("--data", exists=True, file_okay=False, help="Folder of clips, e.g. of `xdub prepare`."),
]
Shards = Annotated[
    Path,
    typer.Option(
        "--out", help="Folder for the shards and the ledger; the same folder continues an earlier run."
    ),
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
