"""The command line `xdub VERB ...`: each verb calls one function of its package with plain arguments."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from xdub import __version__
from xdub.cli import (
    data_sets,
    doctor,
    evaluate,
    exporting,
    make_data,
    plan,
    review,
    speakers,
    submitting,
    training,
    use,
    weights,
)
from xdub.cli.errors import run_app
from xdub.heap import skip_last_collection
from xdub.runtime_env import prepare_environment

app = typer.Typer(
    name="xdub",
    help="Mask-free visual dubbing: prepare clips, train, generate pairs, dub, evaluate. Begin with `xdub demo`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"xdub {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for module in (use, make_data, speakers, review, training, plan, doctor, exporting, submitting):
    module.register(app)
app.add_typer(data_sets.app, name="data")
app.add_typer(evaluate.app, name="eval")
app.add_typer(training.runs, name="runs")
app.add_typer(submitting.jobs, name="jobs")
app.add_typer(weights.app, name="weights")


def main() -> None:
    """Run the `xdub` script.

    The exit code is 0, 2 for an error that the user can correct, 130 when interrupted, and 128 + number after a signal.
    """
    skip_last_collection()
    prepare_environment()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name may hold bytes that the terminal's encoding does not have.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run_app(app))
