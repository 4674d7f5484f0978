"""Verbs that produce data: render, prepare, pairs, import-pairs, encode."""

from __future__ import annotations

from typing import Annotated

import typer

from xdub.cli import options
from xdub.config import ModelFolder
from xdub.progress import progress


def register(app: typer.Typer) -> None:
    """Add the verbs of this module to the command line."""
    app.command()(render)
    app.command()(prepare)
    app.command()(pairs)
    app.command(name="import-pairs")(import_pairs)
    app.command()(encode)


def render(
    out: options.Shards,
    clips: Annotated[int, typer.Option(min=1, help="Number of clips; each has a twin with other speech.")],
    seed: options.Seed = 0,
    first: Annotated[
        int, typer.Option(min=0, help="Index of the first clip; from 1000000 on clips are for evaluation.")
    ] = 0,
    workers: options.Parallel = None,
    recipe: options.Recipe = "tiny",
    set_: options.Set = None,
) -> None:
    """Render talking heads with speech, ground truth and exact pairs.

    Example: xdub render --out heads --clips 64 --seed 0
    """
    from xdub.config import load_recipe
    from xdub.files.storage import locate
    from xdub.render.dataset import render_dataset

    loaded = load_recipe(recipe, set_ or ())
    with progress("rendering clips") as report:
        result = render_dataset(
            loaded,
            out,
            clips=clips,
            seed=seed,
            first=first,
            workers=options.parallel(workers),
            on_progress=report,
        )
    typer.echo(f"{result.kept} rows in {locate(out)}, {result.rendered} of {clips} clips rendered now")


def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Video files, or folders of them; also URIs such as s3://bucket/talks.", metavar="SRC..."
        ),
        options.PathOrUri,
    ],
    out: options.Shards,
    workers: options.Parallel = None,
    limit: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds that one video may take; default: an hour, and a minute for each of its seconds.",
        ),
    ] = None,
    decisions: Annotated[
        str | None,
        typer.Option(
            help="Decisions of `xdub review`, which leave out clips of new videos. Default: OUT/decisions.jsonl.",
            metavar="FILE",
        ),
        options.PathOrUri,
    ] = None,
    recipe: options.Recipe = "tiny",
    set_: options.Set = None,
) -> None:
    """Turn real videos into clip shards; the ledger records the result of every input, and card.html shows the set.

    Example: xdub prepare talks/*.mp4 --out ds
    """
    from xdub.config import load_recipe
    from xdub.data.prepare import prepare_videos
    from xdub.data_card import write_card
    from xdub.files.storage import locate
    from xdub.screen.screen import missing_sync

    loaded = load_recipe(recipe, set_ or ())
    if missing := missing_sync(loaded):
        typer.echo(f"note: {missing}", err=True)
    with progress("preparing videos") as report:
        result = prepare_videos(
            sources,
            out,
            loaded,
            workers=options.parallel(workers),
            limit=limit,
            decisions=decisions,
            on_progress=report,
        )
    name = locate(out)
    typer.echo(
        f"{result.clips} clips added to {name} from {result.sources} videos{_copies(result.copies)} "
        f"({result.counts} in all); "
        f"reasons: {name}/ledger, {write_card(out)}"
    )


def pairs(
    recipe: options.Recipe,
    generator: Annotated[
        str,
        typer.Option(
            help="A trained generator: its run folder, its export, or a model folder; tiny is shipped. A published "
            "editor, such as tbdub-teacher:DIR, makes pairs without a mask."
        ),
        ModelFolder,
    ],
    data: options.Clips,
    out: Annotated[
        str,
        typer.Option(help="Folder or URI for the pair shards and the ledger.", metavar="DIR"),
        options.PathOrUri,
    ],
    workers: options.GpuWorkers = "1",
    resource: Annotated[
        list[str] | None,
        typer.Option(
            help="A Ray resource that each worker occupies, such as pairgen=1, to select machines. Repeatable.",
            metavar="NAME=N",
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(min=0, help="US dollars for one worker and hour, to track the cost of a kept pair."),
    ] = None,
    accept_licence: options.AcceptLicence = None,
    set_: options.Set = None,
) -> None:
    """Generate the editor's training pairs: each is the same video with other lips; filters reject bad ones.

    The same command continues a killed run, with any number of workers, and adds nothing to a finished one.

    Example: xdub pairs --recipe tiny --generator run/generator --data ds --out pairs --workers 0:8
    """
    from xdub.cli.licences import agree, agree_to_base
    from xdub.config import load_recipe
    from xdub.files.run_folder import RunFolder
    from xdub.files.storage import locate
    from xdub.model.published import published_folder
    from xdub.pairs.factory import build_pairs
    from xdub.pool import Workers

    agree(generator, accept_licence)
    loaded = load_recipe(recipe, set_ or ())
    if published_folder(generator) is None:
        agree_to_base(loaded)
    pool = Workers.parse(workers, resources=options.resources(resource or ()))
    # In a run's folder the pairs are one of its stages. A run is tracked on a disk only.
    location = locate(out)
    folder = location.local
    if folder is None:
        typer.echo(f"note: {location} is no folder of this machine, so these pairs are not tracked", err=True)
    run = folder and (folder.parent if RunFolder(folder.parent).state.is_file() else folder)
    with progress("making pairs") as report:
        result = build_pairs(
            loaded, generator, data, out, workers=pool, on_progress=report, tracked_in=run, price=price
        )
    typer.echo(f"{result.inputs} inputs: {result.counts}; reasons: {location}/ledger, {location}/filters.png")


def import_pairs(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders or URIs of scenes: original.mp4, dubbed.mp4, audio.wav.", metavar="SRC..."
        ),
        options.PathOrUri,
    ],
    out: options.Shards,
    workers: options.Parallel = None,
    recipe: options.Recipe = "tiny",
    set_: options.Set = None,
) -> None:
    """Import pairs that you rendered yourself; they are cut and filtered like generated ones.

    SRC/scene/original.mp4 is the target, SRC/scene/dubbed.mp4 the same video with other lips, and
    SRC/scene/audio.wav the original's speech (default: the sound track of original.mp4).

    Example: xdub import-pairs unreal --out pairs --recipe tiny
    """
    from xdub.config import load_recipe
    from xdub.files.storage import locate
    from xdub.pairs.importer import import_pairs

    loaded = load_recipe(recipe, set_ or ())
    with progress("importing pairs") as report:
        result = import_pairs(sources, out, loaded, workers=options.parallel(workers), on_progress=report)
    name = locate(out)
    typer.echo(
        f"{result.clips} pairs added to {name} from {result.sources} scenes{_copies(result.copies)} "
        f"({result.counts} in all); "
        f"reasons: {name}/ledger, {name}/filters.png"
    )


def encode(
    recipe: options.Recipe,
    data: Annotated[
        str,
        typer.Option(
            callback=options.existing_folder,
            help="Folder or URI of clips (`xdub prepare`) or pairs (`xdub pairs`).",
            metavar="DIR",
        ),
        options.PathOrUri,
    ],
    phase: Annotated[
        list[str] | None,
        typer.Option(
            help="A phase that will read the latents; default: all that train on such data. Repeatable."
        ),
    ] = None,
    workers: options.GpuWorkers = "1",
    resource: Annotated[
        list[str] | None,
        typer.Option(
            help="A Ray resource that each worker occupies, such as encode=1, to select machines. Repeatable.",
            metavar="NAME=N",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash existing files, and compute damaged ones again.")
    ] = False,
    set_: options.Set = None,
) -> None:
    """Compute the latents and speech features that a phase reads with --set train.latents=cached.

    The codec and the audio encoder are frozen, so training need not run them in every epoch. `xdub plan` says whether
    a cache is cheaper, and how large it will be; train.window_stride decides how many windows it holds.

    The files are written to the folder latents of the data, or to train.latent_cache. The same command continues a
    killed run, and adds what is missing after the data have grown. Training needs the same --recipe and --set.

    Example: xdub encode --recipe tiny --data ds --set train.window_stride=10
    """
    from xdub.config import load_recipe
    from xdub.encode import encode_latents
    from xdub.pool import Workers

    loaded = load_recipe(recipe, set_ or ())
    pool = Workers.parse(workers, resources=options.resources(resource or ()))
    with progress("encoding clips") as report:
        result = encode_latents(loaded, data, phases=phase, workers=pool, verify=verify, on_progress=report)
    typer.echo(
        f"{result.encoded} of {result.shards} shards encoded now: {result.clips} clips, {result.windows} windows, "
        f"{result.references} reference frames, {result.bytes / 1e9:.2f} GB in {', '.join(result.folders)}"
    )
    for clip_id, reason in list(result.bad.items())[:BAD_SHOWN]:
        typer.echo(f"clip {clip_id} has no latents, and training will skip it: {reason}", err=True)
    if len(result.bad) > BAD_SHOWN:
        typer.echo(f"{len(result.bad) - BAD_SHOWN} more clips have no latents", err=True)


BAD_SHOWN = 5
"""Largest number of damaged clips that `encode` prints."""


def _copies(count: int) -> str:
    """Return a remark about sources that were skipped as copies."""
    return f", without {count} {'copy' if count == 1 else 'copies'} of them" if count else ""
