"""`xdub eval`: measure dubbed videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xdub.cli.progress import progress

app = typer.Typer(help="Measure dubbed videos.", no_args_is_help=True)


@app.command()
def score(
    video: Annotated[Path, typer.Option(help="The dubbed video.", exists=True, dir_okay=False)],
    reference: Annotated[
        Path, typer.Option(help="The same head really saying the new words.", exists=True, dir_okay=False)
    ],
    source: Annotated[
        Path | None,
        typer.Option(help="The video before dubbing: measures the leak.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Score one video against a reference: PSNR, and whether the mouth opens when it should.

    Example: xdub eval score --video dubbed.mp4 --reference truth.mp4 --source original.mp4
    """
    from dataclasses import asdict

    from xdub.evaluate.score import score as run

    with progress("scoring") as report:
        result = run(video, reference, source=source, on_progress=report)
    for name, value in asdict(result).items():
        if value is not None:
            print(f"{name:22s} {value if isinstance(value, int) else format(value, '.3f')}")


@app.callback()
def _root() -> None:
    pass
