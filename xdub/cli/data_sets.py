"""Verbs of `xdub data`, which describe and maintain data sets."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Describe and maintain data sets.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass


@app.command()
def card(
    folder: Annotated[
        str, typer.Argument(help="A data set of clips or pairs; a folder or a URI.", metavar="DIR")
    ],
    out: Annotated[str | None, typer.Option(help="HTML file to write; default: DIR/card.html.")] = None,
) -> None:
    """Write the card of a data set: hours, speakers, checks, masks, rejects and cost, in one HTML page.

    Example: xdub data card ds
    """
    from xdub.data_card import write_card

    typer.echo(f"wrote {write_card(folder, out)}")


@app.command()
def compact(
    folder: Annotated[
        str,
        typer.Argument(help="A data set that no command writes; a folder or a URI.", metavar="DIR"),
    ],
) -> None:
    """Merge the small files of a manifest and a ledger; their content stays the same.

    Commands that write a data set merge these files by themselves, so only the last few are left to merge.

    Example: xdub data compact ds
    """
    from xdub.data.dataset import DataSet
    from xdub.data.manifest import read_manifest
    from xdub.files.storage import locate

    rows = len(read_manifest(folder).ids)
    with DataSet(folder) as dataset:
        before, after = dataset.compact()
    typer.echo(f"{locate(folder)}: {rows} clips; {before} files of manifest and ledger are now {after}")
