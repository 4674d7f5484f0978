"""Verbs for a Ray cluster: submit, and jobs list, status, logs, stop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from xdub.cli import evaluate, make_data, training
from xdub.errors import UserError

VERBS: dict[tuple[str, ...], Callable[..., Any]] = {
    ("render",): make_data.render,
    ("prepare",): make_data.prepare,
    ("train",): training.train,
    ("pairs",): make_data.pairs,
    ("bootstrap",): training.bootstrap,
    ("eval", "score"): evaluate.score,
}
"""What makes sense on a cluster."""

jobs = typer.Typer(help="Jobs that were submitted to a Ray cluster.", no_args_is_help=True)
Address = Annotated[
    str,
    typer.Option(
        "--address", envvar="XDUB_ADDRESS", help="The cluster's dashboard, such as http://127.0.0.1:8265."
    ),
]
JobId = Annotated[str, typer.Argument(help="As `xdub submit` and `xdub jobs list` show it.", metavar="JOB")]


def register(app: typer.Typer) -> None:
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(submit)


def submit(
    context: typer.Context,
    verb: Annotated[
        str, typer.Argument(help="render, prepare, train, pairs, bootstrap or eval score, with its options.")
    ],
    address: Address,
    name: Annotated[
        str | None,
        typer.Option(help="Of the run; the job is NAME-ATTEMPT. VERB and OUT's name if not given."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow the job's output.")] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(
            help="A variable of the job, such as MLFLOW_TRACKING_URI=... Repeatable.", metavar="A=B"
        ),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(help="A small file that goes along. Repeatable.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Run a verb on a Ray cluster, with this very code: pack it, send it, follow it. Again, it continues.

    Paths are the cluster's, absolute, on storage that its machines share; a recipe file here goes along.

    Example: xdub submit bootstrap --recipe tiny --data /shared/ds --out /shared/run --address http://127.0.0.1:8265
    """
    from xdub.submit.command import check_command, check_environment
    from xdub.submit.jobs import Jobs, job_name

    words, rest = _verb(verb, context.args)
    command = check_command(words, VERBS[words], rest, file or ())
    environment = check_environment(env or ())
    cluster = Jobs(address)
    job = cluster.submit(command, name=name or job_name(command), environment=environment)
    typer.echo(f"submitted {job}; xdub jobs logs|status|stop {job} --address {address}", err=True)
    if not detach:
        _follow(cluster, job)


@jobs.command("list")
def list_(address: Address) -> None:
    """All jobs of the cluster, newest first.

    Example: xdub jobs list --address http://127.0.0.1:8265
    """
    from rich.console import Console
    from rich.table import Table

    from xdub.submit.jobs import Jobs

    table = Table("job", "status", "begun", "command")
    for job in Jobs(address).all():
        table.add_row(job.id, job.status, f"{_age(job.seconds)} ago", job.command)
    Console().print(table)


@jobs.command()
def status(job: JobId, address: Address) -> None:
    """One job: status, age, and what Ray says of it.

    Example: xdub jobs status bootstrap-run-1 --address http://127.0.0.1:8265
    """
    from xdub.submit.jobs import Jobs

    found = Jobs(address).status(job)
    typer.echo(f"{found.id} {found.status}, begun {_age(found.seconds)} ago: {found.message}")


@jobs.command()
def logs(
    job: JobId,
    address: Address,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """What a job has printed.

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
    """End a job. A training writes a last checkpoint; submit the same again to continue there.

    After three minutes it is killed; `xdub submit --env RAY_JOB_STOP_WAIT_TIME_S=SECONDS` gives it more or less.

    Example: xdub jobs stop bootstrap-run-1 --address http://127.0.0.1:8265
    """
    from xdub.submit.jobs import Jobs

    typer.echo(f"{job} {Jobs(address).stop(job).status}")


def _verb(first: str, rest: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    for words in VERBS:
        if (first, *rest[: len(words) - 1]) == words:
            return words, list(rest[len(words) - 1 :])
    raise UserError(f"{first} cannot be submitted; one of: {', '.join(' '.join(words) for words in VERBS)}")


def _follow(cluster: Any, job: str) -> None:
    try:
        code = cluster.follow(job)
    except KeyboardInterrupt:
        typer.echo(f"no longer following; {job} goes on (xdub jobs stop {job} ends it)", err=True)
        raise
    if code:
        sys.exit(code)


def _age(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
