"""Verbs of `xdub weights`, the registry of third-party networks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xdub.cli import options
from xdub.errors import UserError
from xdub.progress import progress

if TYPE_CHECKING:
    from xdub.perception.open_models.store import ModelStatus
    from xdub.perception.registry import WeightStatus

app = typer.Typer(
    help="List, download and verify third-party weights, embed a prompt, and upload your own weights.",
    no_args_is_help=True,
)


Folder = Annotated[
    Path | None,
    typer.Option(
        "--in", help="Folder of open models (fetch --to) to look in; default: XDUB_WEIGHTS, the cache."
    ),
]
"""Type of the option that names a folder of open models."""


@app.command("list")
def list_(folder: Folder = None) -> None:
    """List every network with role, size, licence and source, and whether this machine has it.

    Example: xdub weights list
    """
    from xdub.perception.open_models.store import list_models
    from xdub.perception.registry import list_weights

    _print(list_weights())
    _print_models(list_models(folder))


@app.command()
def fetch(
    roles: Annotated[
        list[str] | None,
        typer.Argument(
            help="Roles, as `xdub weights list` shows them; default: all networks of one file.",
            metavar="[ROLE...]",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder for open models, one folder each, such as a recipe's `weights`; default: the cache."
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Check only, without the network (as HF_HUB_OFFLINE=1 does).")
    ] = False,
) -> None:
    """Download what is missing, continue a broken download, and check sha256 and signatures.

    Example: xdub weights fetch wan2.2-vae --to weights
    """
    from xdub.perception.open_models.store import fetch_model
    from xdub.perception.registry import WEIGHTS, Weight, entry_of, fetch_weight

    entries = [entry_of(role) for role in roles] if roles else WEIGHTS
    single = next((entry.role for entry in entries if isinstance(entry, Weight)), None)
    if to is not None and single is not None:
        raise UserError(
            f"--to {to}: is for open models, and {single} is one file in the cache; leave --to out"
        )
    for entry in entries:
        if isinstance(entry, Weight):
            typer.echo(f"{entry.role}: {fetch_weight(entry, offline=offline)}")
            continue
        typer.echo(f"{entry.role}: {entry.licence.name}, {entry.licence.url}", err=True)
        with progress(f"{entry.role}") as report:
            folder = fetch_model(entry, into=to, offline=offline, report=report)
        typer.echo(f"{entry.role}: {folder}")


@app.command()
def verify(
    roles: Annotated[
        list[str] | None,
        typer.Argument(help="Roles to verify; default: all that this machine has.", metavar="[ROLE...]"),
    ] = None,
    folder: Folder = None,
) -> None:
    """Hash every file again and compare the signatures; exit code 2 if one is damaged, or a named one is missing.

    Example: xdub weights verify wan2.2-vae --in weights
    """
    from xdub.perception.open_models.store import list_models
    from xdub.perception.registry import Weight, entry_of
    from xdub.perception.registry import verify as verify_all

    entries = [entry_of(role) for role in roles or ()]
    single = next((entry.role for entry in entries if isinstance(entry, Weight)), None)
    if folder is not None and single is not None:
        raise UserError(
            f"--in {folder}: is for open models, and {single} is one file in the cache; leave --in out"
        )
    chosen = {entry.role for entry in entries}
    statuses = [status for status in verify_all() if not chosen or status.weight.role in chosen]
    models = [
        status for status in list_models(folder, hashed=True) if not chosen or status.model.role in chosen
    ]
    _print(statuses)
    _print_models(models)
    damaged = {status.weight.role: str(status.path) for status in statuses if status.state == "damaged"}
    damaged |= {
        status.model.role: f"{status.path} ({status.problem})"
        for status in models
        if status.state == "damaged"
    }
    if damaged:
        command = _fetch_command(damaged, folder)
        raise UserError(f"damaged: {', '.join(damaged.values())}; delete the file and run {command}")
    states: dict[str, str] = {status.weight.role: status.state for status in statuses}
    states |= {status.model.role: status.state for status in models}
    missing = [role for role in sorted(chosen) if states[role] != "ok"]
    if missing:
        words = ", ".join(f"{role} is {states[role]}" for role in missing)
        elsewhere = ", or name another folder by --in" if single is None else ""
        raise UserError(f"{words}; run {_fetch_command(missing, folder)}{elsewhere}")


def _fetch_command(roles: Iterable[str], folder: Path | None) -> str:
    """Return the commands that fetch networks: those of one file go into the cache, others into a folder, if any."""
    from xdub.perception.registry import Weight, entry_of

    single = [role for role in roles if folder is None or isinstance(entry_of(role), Weight)]
    others = [role for role in roles if role not in single]
    commands = [f"`xdub weights fetch {' '.join(single)}`"] if single else []
    return " and ".join(
        commands + ([f"`xdub weights fetch {' '.join(others)} --to {folder}`"] if others else [])
    )


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


@app.command()
def prompt(
    umt5: Annotated[
        Path, typer.Option(help="Folder of UMT5 with its tokenizer, e.g. of `xdub weights fetch umt5`.")
    ],
    out: Annotated[Path, typer.Option(help="File to write, e.g. WEIGHTS/prompt.safetensors.")],
    text: Annotated[str, typer.Option(help="The prompt; the empty one is that of the dubbing editors.")] = "",
) -> None:
    """Embed one prompt once, so that training and dubbing load no text encoder.

    Example: xdub weights prompt --umt5 weights/umt5 --out weights/prompt.safetensors
    """
    from xdub.files.atomic import check_output
    from xdub.model.prompt import write_prompt
    from xdub.model.text_encoder import embed_prompt
    from xdub.ray_session import environment

    check_output(out)
    # transformers imports DeepSpeed, which would warn that there is no GPU.
    with environment({"DS_ACCELERATOR": "cpu"}):
        result = embed_prompt(umt5, text)
    write_prompt(result, out)
    typer.echo(
        f"{out}: {result.rows.shape[0]} rows of width {result.width}, {result.padding} zero rows behind them"
    )


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder of `xdub export`.", exists=True, file_okay=False)],
    repo: Annotated[str, typer.Option(help="Repository of the hub, OWNER/NAME; it is created if it is new.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List files and card, without the network.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Upload exported weights with their model card to the Hugging Face hub.

    Example: xdub weights push lora --repo me/my-dubbing-lora --dry-run
    """
    from xdub.export import push_folder

    with progress(f"listing {folder}" if dry_run else f"uploading to {repo}"):
        upload = push_folder(folder, repo, dry_run=dry_run, private=private)
    for name, size in upload.files.items():
        typer.echo(f"{name}: {size / 1e6:.2f} MB")
    typer.echo(f"licence: {upload.licence}")
    if upload.url is None:
        typer.echo(f"\n{upload.card}\n{repo}: nothing was uploaded (--dry-run)")
    else:
        typer.echo(f"{repo}: {upload.url}")


def _print(statuses: Iterable[WeightStatus]) -> None:
    for status in statuses:
        weight = status.weight
        print(f"{weight.role}: {status.state}" + (f", {status.path}" if status.path else ""))
        print(f"    {weight.purpose}")
        print(f"    {weight.file}, {weight.size / 1e6:.1f} MB, {weight.licence}")
        print(f"    source: {', or '.join(str(source) for source in weight.sources)}")


def _print_models(statuses: Iterable[ModelStatus]) -> None:
    for status in statuses:
        model = status.model
        print(f"{model.role}: {status.state}" + (f", {status.path}" if status.path else ""))
        print(f"    {model.purpose}")
        about = "" if model.is_exact else "about "
        files = "1 file" if len(model.files) == 1 else f"{len(model.files)} files"
        print(f"    {files}, {about}{model.size / 1e9:.2f} GB, {model.licence.name}")
        print(f"    known: {model.proof}")
        if model.licence.notice:
            print(f"    terms: {model.licence.notice}")
        sources = dict.fromkeys(file.source.home for file in model.files)
        print(f"    source: {', '.join(sources)}")
        if status.problem and status.path:
            print(f"    problem: {status.problem}")
