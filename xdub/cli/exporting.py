"""Verb that writes trained weights for other software: export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from xdub.progress import progress


class Form(StrEnum):
    """Forms of `xdub.export`, spelled here so that the command line imports no torch."""

    peft = "peft"
    diffusers_lora = "diffusers-lora"
    comfy_lora = "comfy-lora"
    merged = "merged"
    diffusers = "diffusers"


class Dtype(StrEnum):
    """Number formats of a whole network."""

    fp32 = "fp32"
    bf16 = "bf16"


def register(app: typer.Typer) -> None:
    """Add the verbs of this module to the command line."""
    app.command()(export)


def export(
    source: Annotated[
        str, typer.Argument(help="Folder of a run, a model folder (`tiny` is shipped), or a phase's export.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier export is replaced.")],
    form: Annotated[
        Form,
        typer.Option(
            help="peft, diffusers-lora and comfy-lora are adapters; merged is the whole network in the layout of its "
            "release, diffusers the same in that of diffusers."
        ),
    ],
    phase: Annotated[
        str | None, typer.Option(help="Phase to export; default: all adapters, or the network that dubs.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Name of the base in `xdub weights list`; default: recognised by its tensors."),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of these weights, such as apache-2.0; default: that of the base."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="JSON of metrics for the card, e.g. of `xdub eval score --json`.", exists=True),
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="Number format of a whole network.")] = Dtype.fp32,
) -> None:
    """Write trained weights in a form that other software loads, with a model card.

    Example: xdub export RUN --out lora --form diffusers-lora
    """
    from xdub.export import export_weights
    from xdub.precision import dtype_of
    from xdub.ray_session import environment

    # peft imports DeepSpeed, which would warn that there is no GPU.
    with environment({"DS_ACCELERATOR": "cpu"}), progress(f"exporting {form.value}"):
        result = export_weights(
            source,
            out,
            form.value,
            phase=phase,
            base=base,
            licence=licence,
            scores=scores,
            dtype=dtype_of(dtype.value),
        )
    for name, size in result.files.items():
        typer.echo(f"{result.folder / name}: {size / 1e6:.2f} MB")
