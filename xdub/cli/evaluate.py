"""`xdub eval`: measure dubbed videos."""

from __future__ import annotations

import typer

app = typer.Typer(help="Measure dubbed videos.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass
