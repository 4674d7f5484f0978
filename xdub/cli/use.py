"""Verbs that use a model: demo, dub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xdub.cli import options
from xdub.config import SHIPPED_MODEL, ModelFolder
from xdub.progress import progress


def register(app: typer.Typer) -> None:
    app.command()(demo)
    app.command()(dub)


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder of the demo; the same folder continues a killed one.")
    ] = Path("demo"),
    seed: options.Seed = 0,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train from random weights, not on from the shipped ones.")
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(min=1, max=10_000, help="About how long it may take on two cores; 12, from scratch 20."),
    ] = None,
) -> None:
    """The whole journey on this machine, from rendered heads to a dubbed clip and a report with the proof.

    Example: xdub demo --out demo --seed 3
    """
    from xdub.demo import run_demo

    run_demo(out, seed=seed, from_scratch=from_scratch, minutes=minutes)


def dub(
    video: Annotated[Path, typer.Option(help="The video to dub.", exists=True, dir_okay=False)],
    audio: Annotated[
        Path, typer.Option(help="The new speech: audio, or a video with sound.", exists=True, dir_okay=False)
    ],
    out: Annotated[Path, typer.Option(help="The dubbed video, .mp4.")],
    model: Annotated[
        str, typer.Option(help="`tiny` (shipped) or a model folder, e.g. RUN/bundle."), ModelFolder
    ] = SHIPPED_MODEL,
    seed: options.Seed = 0,
) -> None:
    """Give a video new speech: the same video, as long as the speech, with lips that say it.

    Example: xdub dub --video talk.mp4 --audio german.wav --out german.mp4
    """
    from xdub.dub import dub_video

    with progress("dubbing") as report:
        made = dub_video(video, audio, out, model=model, seed=seed, on_progress=report)
    looped = "; the video was shorter than the speech and was played back and forth" if made.mirrored else ""
    typer.echo(f"{out}: {made.frames} frames, {made.dubbed} with a face{looped}")
