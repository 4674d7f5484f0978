"""The verb that groups clips by speaker."""

from __future__ import annotations

from typing import Annotated

import typer

from xdub.cli import options
from xdub.progress import progress


def register(app: typer.Typer) -> None:
    """Add the verbs of this module to the command line."""
    app.command()(speakers)


def speakers(
    data: Annotated[
        str, typer.Option(help="Folder or URI of clips (`xdub prepare`).", metavar="DIR"), options.PathOrUri
    ],
    workers: Annotated[
        str,
        typer.Option(
            help="Number of workers, each with a tenth of a GPU if the cluster has any; MIN:MAX, such as 0:8, "
            "follows the queue.",
            metavar="N|MIN:MAX",
        ),
    ] = "1",
    recipe: options.Recipe = "tiny",
    set_: options.Set = None,
) -> None:
    """Group clips by who speaks, over all files, and find clips that repeat the footage of another.

    A pair needs another utterance of the same speaker, and `xdub prepare` knows the file of a clip alone. Run this verb
    after it, and again after clips were added: only new shards are measured, and known clips keep their speakers.

    Example: xdub speakers --data ds --workers 4
    """
    from xdub.config import load_recipe
    from xdub.files.storage import locate
    from xdub.pool import Workers
    from xdub.speakers import group_clips

    loaded = load_recipe(recipe, set_ or ())
    with progress("measuring clips") as report:
        result = group_clips(loaded, data, workers=Workers.parse(workers), on_progress=report)
    typer.echo(
        f"{result.speakers} speakers in {result.clips} clips of {locate(data)} ({result.measured} measured now): "
        f"{result.alone} clips without another utterance of their speaker, {result.duplicates} duplicates"
    )
    for clip_id, reason in list(result.bad.items())[:5]:
        typer.echo(f"clip {clip_id} could not be measured: {reason}", err=True)
