"""Verbs that use a model: demo and dub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xdub.cli import options
from xdub.config import SHIPPED_MODEL, ModelFolder
from xdub.progress import progress


def register(app: typer.Typer) -> None:
    """Add the verbs of this module to the command line."""
    app.command()(demo)
    app.command()(dub)


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder of the demo; the same folder continues a killed one.")
    ] = Path("demo"),
    seed: options.Seed = 0,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train from random weights instead of the shipped ones.")
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=1, max=10_000, help="Approximate duration on two cores; default: 12, from scratch 20."
        ),
    ] = None,
) -> None:
    """Run every stage on this machine, from rendered heads to a dubbed clip and a report that measures the clip.

    Example: xdub demo --out demo --seed 3
    """
    from xdub.demo import run_demo

    run_demo(out, seed=seed, from_scratch=from_scratch, minutes=minutes)


def dub(
    video: Annotated[Path, typer.Option(help="The video to dub.", exists=True, dir_okay=False)],
    audio: Annotated[
        Path, typer.Option(help="The new speech: audio, or a video with sound.", exists=True, dir_okay=False)
    ],
    out: Annotated[Path, typer.Option(help="The dubbed video to write, .mp4.")],
    model: Annotated[
        str,
        typer.Option(
            help="`tiny` (shipped), a model folder, e.g. RUN/bundle, or a published editor: xdub-public:DIR, "
            "tbdub-teacher:DIR or tbdub-student:DIR."
        ),
        ModelFolder,
    ] = SHIPPED_MODEL,
    seed: options.Seed = 0,
    accept_licence: options.AcceptLicence = None,
    set_: options.Set = None,
) -> None:
    """Dub a video with new speech: the result is as long as the speech, and its lips match the speech.

    Example: xdub dub --video talk.mp4 --audio german.wav --out german.mp4
    """
    from xdub.cli.licences import agree, agree_to_base
    from xdub.dub.dub import dub_video
    from xdub.model.bundle import bundle_recipe

    agree(model, accept_licence)
    if (folder_recipe := bundle_recipe(model, set_ or [])) is not None:
        agree_to_base(folder_recipe)

    def warn(message: str) -> None:
        typer.echo(f"xdub: warning: {message}", err=True)

    with progress("dubbing") as report:
        result = dub_video(
            video,
            audio,
            out,
            model=model,
            settings=set_ or (),
            seed=seed,
            on_progress=report,
            on_warning=warn,
        )
    looped = (
        "; the video was shorter than the speech and was played back and forth" if result.mirrored else ""
    )
    typer.echo(f"{out}: {result.frames} frames, {result.dubbed} with a face{looped}")
