"""`xdub weights`: the registry of third-party networks."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Third-party weights: what is needed, from where, under which licence.", no_args_is_help=True
)


@app.callback()
def _root() -> None:
    pass
