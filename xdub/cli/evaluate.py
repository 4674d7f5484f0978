"""Verbs of `xdub eval`, which measure dubbed videos."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from xdub.progress import progress

app = typer.Typer(help="Measure dubbed videos.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass


@app.command()
def score(
    video: Annotated[Path, typer.Option(help="The dubbed video.", exists=True, dir_okay=False)],
    reference: Annotated[
        Path, typer.Option(help="A real recording of the same speech.", exists=True, dir_okay=False)
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            help="The video before dubbing, to measure how much of its lips remains.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare a dubbed video with a real recording: lip opening over time, picture quality, leak of the old lips.

    Example: xdub eval score --video dubbed.mp4 --reference truth.mp4 --source original.mp4
    """
    from xdub.evaluate.score import score as score_video

    with progress("scoring") as report:
        figures = score_video(video, reference, source=source, on_progress=report).to_dict()
    if as_json:
        # JSON has neither NaN (a correlation over one frame) nor infinity (the PSNR of equal pictures).
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}
        typer.echo(json.dumps(finite, allow_nan=False))
        return
    for name, value in figures.items():
        if value is not None:
            typer.echo(f"{name:>20}  {value:.3f}" if isinstance(value, float) else f"{name:>20}  {value}")
