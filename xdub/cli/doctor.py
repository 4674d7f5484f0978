"""The verb doctor: checks of a recipe, its networks and this machine before anything is paid for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xdub.cli import options
from xdub.config import ModelFolder

if TYPE_CHECKING:
    from xdub.doctor.rows import Progress, Row


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
            min=5,
            help="Longest window, 4k + 1 frames, at least one latent more than the motion frames. "
            "Default: the recipe's on a GPU, 17 on a CPU.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the rows to this JSON file.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="A data set whose cached latents (`xdub encode`) are checked. Repeatable.", metavar="DIR"
        ),
        options.PathOrUri,
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(help="For a recipe on a published editor: the editor NAME:DIR, as in `xdub bootstrap`."),
        ModelFolder,
    ] = None,
    set_: options.Set = None,
) -> None:
    """Check that a recipe can run here: every network it names is present, of the right kind, and fits the others.

    The table has four parts:
    files: headers of all networks;
    machine: device, DeepSpeed, disk, shared memory;
    networks: each on its device, with gradients where a loss needs them;
    stages: one real step of every phase and of a SyncNet, two pairs, one dub.

    Stages train two blocks of the recipe's width on drawn faces. Nothing is kept.

    A row is ok, wrong (with the fix), or not run because of a row above it.
    The exit code is 2 if a row is wrong.

    `xdub train`, `bootstrap`, `pairs` and `submit` begin with the checks of --quick.
    `xdub submit doctor` examines on a worker of the cluster.
    `xdub weights mini --like RECIPE` writes random networks of the true widths.

    Example: xdub doctor --recipe xdub-1b --set weights=/shared/weights
    """
    from rich.console import Console

    from xdub.config import load_recipe
    from xdub.doctor.examine import Sizes
    from xdub.doctor.on_cluster import examine_anywhere
    from xdub.doctor.table import as_json, print_table, summary
    from xdub.errors import UserError
    from xdub.files.atomic import check_output
    from xdub.files.storage import address

    if json_file is not None:
        check_output(json_file, streams=True)
    if generator is None:
        loaded = load_recipe(recipe, set_ or ())
    else:
        # Reading the sizes of a network imports torch.
        from xdub.model.editor_start import load_recipe_from_editor

        loaded = load_recipe_from_editor(recipe, (generator,), set_ or ())
    sets = tuple(map(address, data or ()))
    sizes = Sizes(quick=quick, size=size, frames=frames, data=sets)
    with _progress() as progress:
        rows, facts = examine_anywhere(loaded, sizes, progress)
    console = Console(width=None if Console().is_terminal else 120)
    print_table(rows, console)
    console.print(summary(rows, facts), highlight=False)
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(rows, facts), indent=1) + "\n")
    wrong = [row.name for row in rows if row.result == "wrong"]
    if wrong:
        raise UserError(f"recipe {loaded.name} cannot run: {', '.join(wrong)}; the table has the fixes")


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Show the running check in a terminal; elsewhere print a line for every check that took time."""
    from rich.console import Console

    from xdub.doctor.rows import Progress

    def print_row(row: Row) -> None:
        if row.seconds >= 0.5:
            typer.echo(f"{row.name}: {row.result}, {row.seconds:.1f} s", err=True)

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Progress(end=print_row)
        return
    with console.status("files") as status:
        yield Progress(begin=status.update)
