"""Verbs for a Ray cluster: submit, and jobs list, status, logs and stop."""

from __future__ import annotations

import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand, TyperGroup

from xdub.cli import options
from xdub.config import ModelFolder
from xdub.errors import UserError
from xdub.submit.command import Kind, check_command, check_environment, check_name, job_name

if TYPE_CHECKING:
    from xdub.submit.jobs import Jobs

VERBS = (
    ("render",),
    ("prepare",),
    ("import-pairs",),
    ("speakers",),
    ("encode",),
    ("train",),
    ("pairs",),
    ("bootstrap",),
    ("eval", "score"),
    ("doctor",),
)
"""Verbs that can run as jobs."""

jobs = typer.Typer(help="Manage jobs that were submitted to a Ray cluster.", no_args_is_help=True)
Address = Annotated[
    str,
    typer.Option(
        "--address", envvar="XDUB_ADDRESS", help="The cluster's dashboard, such as http://127.0.0.1:8265."
    ),
]
"""Option of every verb of this module."""
JobId = Annotated[
    str, typer.Argument(help="Id that `xdub submit` and `xdub jobs list` print.", metavar="JOB")
]
"""Argument of the verbs for one job."""


def register(app: typer.Typer) -> None:
    """Add the verbs of this module to the command line."""
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(submit)


def submit(
    context: typer.Context,
    verb: Annotated[
        str,
        typer.Argument(
            help="render, prepare, import-pairs, speakers, encode, train, pairs, bootstrap, eval score or doctor, with "
            "its options."
        ),
    ],
    address: Address,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the run; the job is NAME-ATTEMPT. Default: VERB and OUT's name."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not print the job's output.")] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(
            help="An environment variable of the job, such as MLFLOW_TRACKING_URI=... Repeatable.",
            metavar="A=B",
        ),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(help="A small local file to send. Repeatable.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Run a verb on a Ray cluster with this code, and print its output. The same command continues a stopped job.

    Paths are absolute paths of the cluster, on storage that its machines share; a local recipe file is sent.

    Example: xdub submit bootstrap --recipe tiny --data /shared/ds --out /shared/run --address http://127.0.0.1:8265
    """
    from xdub.submit.jobs import Jobs

    words, rest = _verb(verb, context.args)
    command = check_command(words, option_kinds(context.find_root().command, words), rest, file or ())
    variables = check_environment(env or ())
    name = job_name(command) if name is None else check_name(name)
    cluster = Jobs(address)
    job = cluster.submit(command, name=name, variables=variables)
    typer.echo(f"submitted {job}; xdub jobs logs|status|stop {job} --address {cluster.address}", err=True)
    if not detach:
        _follow(cluster, job)


@jobs.command("list")
def list_(address: Address) -> None:
    """List all jobs of the cluster, newest first.

    Example: xdub jobs list --address http://127.0.0.1:8265
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from xdub.submit.jobs import Jobs

    table = Table(Column("job", overflow="fold"), "status", "started", "command")
    for job in Jobs(address).all():
        table.add_row(escape(job.id), job.status, f"{_age(job.seconds)} ago", escape(job.command))
    Console().print(table)


@jobs.command()
def status(job: JobId, address: Address) -> None:
    """Print a job's status, age and Ray's message.

    Example: xdub jobs status bootstrap-run-1 --address http://127.0.0.1:8265
    """
    from xdub.submit.jobs import Jobs

    state = Jobs(address).status(job)
    typer.echo(f"{state.id} {state.status}, started {_age(state.seconds)} ago: {state.message}")


@jobs.command()
def logs(
    job: JobId,
    address: Address,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print further output until the job ends.")
    ] = False,
) -> None:
    """Print the output of a job.

    Example: xdub jobs logs bootstrap-run-1 --follow --address http://127.0.0.1:8265
    """
    from xdub.submit.jobs import Jobs

    cluster = Jobs(address)
    if follow:
        _follow(cluster, job)
    else:
        typer.echo(cluster.logs(job), nl=False)


@jobs.command()
def stop(job: JobId, address: Address) -> None:
    """Stop a job and wait for its end. A training run writes a last checkpoint; the same `xdub submit` continues there.

    Ray kills the job after three minutes; `xdub submit --env RAY_JOB_STOP_WAIT_TIME_S=SECONDS` sets another time.

    Example: xdub jobs stop bootstrap-run-1 --address http://127.0.0.1:8265
    """
    from xdub.submit.jobs import Jobs

    typer.echo(f"{job} {Jobs(address).stop(job).status}")


def _verb(first: str, rest: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    for words in VERBS:
        if (first, *rest[: len(words) - 1]) == words:
            return words, list(rest[len(words) - 1 :])
    raise UserError(f"{first} cannot be submitted; one of: {', '.join(' '.join(words) for words in VERBS)}")


def option_kinds(root: object, verb: Sequence[str]) -> dict[str, Kind]:
    """Return the kind of every option of a verb; the key "" has that of the positional arguments.

    ``root`` is the command `xdub` itself.
    """
    command = root
    for word in verb:
        assert isinstance(command, TyperGroup)
        command = command.commands[word]
    assert isinstance(command, TyperCommand) and command.callback is not None
    hints = typing.get_type_hints(command.callback, include_extras=True)
    kinds = {}
    for parameter in command.params:
        hint = hints.get(str(parameter.name))
        if getattr(parameter, "is_flag", False):
            kind = Kind.FLAG
        elif ModelFolder in typing.get_args(hint):
            kind = Kind.MODEL
        else:
            kind = Kind.PATH if {Path, options.PathOrUri} & _types(hint) else Kind.TEXT
        kinds |= dict.fromkeys([""] if parameter.param_type_name == "argument" else parameter.opts, kind)
    return kinds


def _types(hint: object) -> set[object]:
    """Return the types inside an annotation such as ``Annotated[list[Path] | None, ...]``."""
    return {hint}.union(*(_types(part) for part in typing.get_args(hint)))


def _follow(cluster: Jobs, job: str) -> None:
    try:
        code = cluster.follow(job)
    except KeyboardInterrupt:
        typer.echo(f"output ends here; {job} still runs (xdub jobs stop {job} ends it)", err=True)
        raise
    if code:
        sys.exit(code)


def _age(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
