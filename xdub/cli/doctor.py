"""The verb doctor: checks of a recipe, its networks and this machine before anything is paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xdub.cli import options

if TYPE_CHECKING:
    from xdub.doctor.rows import Row


def register(app: typer.Typer) -> None:
    """Add the verb of this module to the command line."""
    app.command()(doctor)


def doctor(
    recipe: options.Recipe,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read headers of files only: seconds, and no network is loaded.")
    ] = False,
    size: Annotated[
        int | None,
        typer.Option(
            min=16, help="Side of the pictures, px. Default: the recipe's on a GPU, about 64 on a CPU."
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=5, help="Longest window, frames, 4k + 1. Default: the recipe's on a GPU, 17 on a CPU."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the rows to this JSON file.")
    ] = None,
    set_: options.Set = None,
) -> None:
    """Check that a recipe can run here: every network it names is present, of the right kind, and fits the others.

    Every row says ok, or what is wrong and how to fix it. The exit code is 2 if a row is wrong.

    `xdub train`, `bootstrap`, `pairs` and `submit` check the headers themselves.

    Example: xdub doctor --recipe xdub-1b --set weights=/shared/weights
    """
    from rich.console import Console

    from xdub.config import load_recipe
    from xdub.doctor.examine import examine
    from xdub.doctor.table import as_json, print_table
    from xdub.errors import UserError
    from xdub.files.atomic import check_output

    def show(row: Row) -> None:
        typer.echo(f"{row.name}: {row.result}, {row.seconds:.1f} s", err=True)

    if json_file is not None:
        check_output(json_file, streams=True)
    loaded = load_recipe(recipe, set_ or ())
    rows, facts = examine(loaded, quick=quick, size=size, frames=frames, on_row=show)
    print_table(rows, Console(width=None if Console().is_terminal else 160))
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(rows, facts), indent=1) + "\n")
    wrong = [row.name for row in rows if row.result != "ok"]
    if wrong:
        raise UserError(f"recipe {loaded.name} cannot run: {', '.join(wrong)}; the table has the fixes")
