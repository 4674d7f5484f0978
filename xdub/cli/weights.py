"""Verbs of `xdub weights`, the registry of third-party networks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xdub.cli import options
from xdub.errors import UserError

if TYPE_CHECKING:
    from xdub.perception.registry import WeightStatus

app = typer.Typer(help="List, download and verify third-party weights.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List every file with role, size, licence and source, and whether this machine has it.

    Example: xdub weights list
    """
    from xdub.perception.registry import list_weights

    _print(list_weights())


@app.command()
def fetch(
    roles: Annotated[
        list[str] | None,
        typer.Argument(help="Roles, as `xdub weights list` shows them; default: all.", metavar="[ROLE...]"),
    ] = None,
) -> None:
    """Download missing files into the cache and check their sha256.

    Example: xdub weights fetch face_landmarker
    """
    from xdub.perception.registry import WEIGHTS, weight_of
    from xdub.perception.registry import fetch as fetch_role

    for role in [weight_of(role).role for role in roles] if roles else [weight.role for weight in WEIGHTS]:
        typer.echo(f"{role}: {fetch_role(role)}")


@app.command()
def verify() -> None:
    """Hash every file again; exit code 2 if one is damaged.

    Example: xdub weights verify
    """
    from xdub.perception.registry import verify as verify_all

    statuses = verify_all()
    _print(statuses)
    damaged = [str(status.path) for status in statuses if status.state == "damaged"]
    if damaged:
        raise UserError(f"damaged: {', '.join(damaged)}; delete the file and run `xdub weights fetch`")


@app.command()
def mini(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    like: Annotated[
        str,
        typer.Option(
            help="Recipe whose networks are written: `mini` is the toy; another recipe's have its true widths and one "
            "block."
        ),
    ] = "mini",
    seed: options.Seed = 0,
    set_: options.Set = None,
) -> None:
    """Write small random networks in the true formats, to drive a recipe's whole path before anything is downloaded.

    Example: xdub weights mini --out w, then xdub bootstrap --recipe mini --set weights=w --data DS --out run
    """
    from xdub.config import load_recipe
    from xdub.miniature import write_miniature
    from xdub.ray_session import environment

    # transformers imports DeepSpeed, which would warn that there is no GPU; the networks are written on a CPU.
    with environment({"DS_ACCELERATOR": "cpu"}):
        rows = write_miniature(load_recipe(like, set_ or ()), out, seed=seed)
    width = max(len(row.name) for row in rows)
    for row in rows:
        typer.echo(f"{row.name:{width}}  {row.size / 1e6:8.2f} MB  {row.format}")
    typer.echo(f"{out}: {sum(row.size for row in rows) / 1e6:.2f} MB; use it with --set weights={out}")


def _print(statuses: Iterable[WeightStatus]) -> None:
    for status in statuses:
        weight = status.weight
        print(f"{weight.role}: {status.state}" + (f", {status.path}" if status.path else ""))
        print(f"    {weight.purpose}")
        print(f"    {weight.file}, {weight.size / 1e6:.1f} MB, {weight.licence}")
        print(f"    source: {', or '.join(str(source) for source in weight.sources)}")
