"""Verbs that make data: render, prepare, pairs, import-pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xdub.cli import options
from xdub.config import ModelFolder
from xdub.progress import progress


def register(app: typer.Typer) -> None:
    app.command()(render)
    app.command()(prepare)
    app.command()(pairs)
    app.command(name="import-pairs")(import_pairs)


def render(
    out: Annotated[Path, typer.Option(help="Folder for the shards; the same folder is continued.")],
    clips: Annotated[
        int, typer.Option(min=1, help="How many clips; each comes with a twin that says something else.")
    ],
    seed: options.Seed = 0,
    first: Annotated[
        int, typer.Option(min=0, help="Number of the first clip; from 1000000 on they are for evaluation.")
    ] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per core if not given.")] = None,
    recipe: options.Recipe = "tiny",
    set_: options.Set = None,
) -> None:
    """Render talking heads with speech, ground truth and exact pairs.

    Example: xdub render --out heads --clips 64 --seed 0
    """
    from xdub.config import load_recipe
    from xdub.render.dataset import render_dataset

    loaded = load_recipe(recipe, set_ or ())
    with progress("rendering clips") as report:
        made = render_dataset(
            loaded, out, clips=clips, seed=seed, first=first, workers=workers, on_progress=report
        )
    typer.echo(f"{made.kept} rows in {out}, {made.rendered} of {clips} clips rendered now")


def prepare(
    sources: Annotated[list[Path], typer.Argument(help="Video files, or folders of them.", metavar="SRC...")],
    out: options.Shards,
    workers: options.Parallel = None,
    recipe: options.Recipe = "tiny",
    set_: options.Set = None,
) -> None:
    """Turn real videos into clip shards; the ledger says what became of every input.

    Example: xdub prepare talks/*.mp4 --out ds
    """
    from xdub.config import load_recipe
    from xdub.data.prepare import prepare_videos

    loaded = load_recipe(recipe, set_ or ())
    with progress("preparing videos") as report:
        made = prepare_videos(sources, out, loaded, workers=workers, on_progress=report)
    typer.echo(
        f"{made.clips} clips added to {out} from {made.sources} videos ({made.counts} in all); "
        f"{out}/ledger.parquet says why"
    )


def pairs(
    recipe: options.Recipe,
    generator: Annotated[
        str,
        typer.Option(help="A trained generator: its run, its export, or a model; tiny is the shipped one."),
        ModelFolder,
    ],
    data: options.Data,
    out: Annotated[Path, typer.Option(help="Folder for the pair shards and the ledger.")],
    workers: Annotated[
        str,
        typer.Option(
            help="How many at once, each with a GPU where there are any; MIN:MAX, such as 0:8, follows the queue.",
            metavar="N|MIN:MAX",
        ),
    ] = "1",
    resource: Annotated[
        list[str] | None,
        typer.Option(
            help="A Ray resource that each worker takes, such as pairgen=1: where they may run. Repeatable.",
            metavar="NAME=N",
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            min=0, help="Dollars an hour of a worker: the cost of a kept pair is then tracked, too."
        ),
    ] = None,
    set_: options.Set = None,
) -> None:
    """Let a generator make the training pairs of the editor: the same video with other lips, filtered.

    The same command continues what was killed, with any number of workers, and adds nothing when all is done.

    Example: xdub pairs --recipe tiny --generator run/generator --data ds --out pairs --workers 0:8
    """
    from xdub.config import load_recipe
    from xdub.pairs.build import build_pairs
    from xdub.pairs.workers import Workers
    from xdub.tracking.sink import STATE

    loaded = load_recipe(recipe, set_ or ())
    staff = Workers.parse(workers, resources=options.resources(resource or ()))
    # In a run's folder the pairs are one of its stages.
    run = out.parent if (out.parent / STATE).is_file() else out
    with progress("making pairs") as report:
        made = build_pairs(
            loaded, generator, data, out, workers=staff, on_progress=report, tracked_in=run, price=price
        )
    typer.echo(
        f"{made.inputs} inputs: {made.counts}; {out}/ledger.parquet says why, {out}/filters.png shows it"
    )


def import_pairs(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Folders of scenes: original.mp4, dubbed.mp4, audio.wav.", metavar="SRC..."),
    ],
    out: options.Shards,
    workers: options.Parallel = None,
    recipe: options.Recipe = "tiny",
    set_: options.Set = None,
) -> None:
    """Take in pairs that you rendered yourself, cut and judged like generated ones.

    SRC/scene/original.mp4 is the target, SRC/scene/dubbed.mp4 the same with other lips, SRC/scene/audio.wav the
    original's speech (its own sound track, if there is no such file).

    Example: xdub import-pairs unreal --out pairs --recipe tiny
    """
    from xdub.config import load_recipe
    from xdub.pairs.importer import import_pairs

    loaded = load_recipe(recipe, set_ or ())
    with progress("importing pairs") as report:
        made = import_pairs(sources, out, loaded, workers=workers, on_progress=report)
    typer.echo(
        f"{made.clips} pairs added to {out} from {made.sources} scenes ({made.counts} in all); "
        f"{out}/ledger.parquet says why, {out}/filters.png shows it"
    )
