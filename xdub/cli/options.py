"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from xdub.errors import UserError

Recipe = Annotated[
    str, typer.Option("--recipe", "-r", help="A shipped recipe (tiny, small, xdub-1b) or a YAML file.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change a number of the recipe: section.key=value. Repeatable.", metavar="A.B=C"
    ),
]
Data = Annotated[
    Path, typer.Option("--data", exists=True, file_okay=False, help="Folder of clip or pair shards.")
]
Shards = Annotated[
    Path,
    typer.Option("--out", help="Folder for the shards and the ledger; the same folder is continued."),
]
Parallel = Annotated[
    int | None, typer.Option("--workers", min=1, help="Parallel workers; as many as cores if not given.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same result.")]


def resources(told: Sequence[str]) -> dict[str, float]:
    """``pairgen=1`` -> {"pairgen": 1.0}."""
    found = {}
    for text in told:
        name, _, amount = text.partition("=")
        try:
            found[name] = float(amount)
        except ValueError:
            raise UserError(f"--resource {text}: give NAME=NUMBER, such as pairgen=1") from None
    return found
