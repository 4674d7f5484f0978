"""Verbs that train: train and bootstrap; and the verb runs compare."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from xdub.cli import options
from xdub.config import TRAINABLE, ModelFolder
from xdub.progress import stage_progress

Phase = StrEnum("Phase", {name: name for name in TRAINABLE})
"""The phases as choices of an option."""

runs = typer.Typer(help="Compare training runs.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs of this module to the command line."""
    app.command()(train)
    app.command()(bootstrap)


def train(
    phase: Annotated[Phase, typer.Argument(help="The phase to train.")],
    recipe: options.Recipe,
    data: Annotated[
        str,
        typer.Option(
            callback=options.existing_folder,
            help="Folder or URI of clips (`xdub prepare`) for the generator, of pairs (`xdub pairs`) for the other "
            "phases; a SyncNet accepts both.",
            metavar="DIR",
        ),
        options.PathOrUri,
    ],
    out: Annotated[Path, typer.Option(help="The run's folder, for checkpoints, export and tracking.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out from its last checkpoint.")
    ] = False,
    init_from: Annotated[
        str | None,
        typer.Option(
            help="Start from these weights: an export folder, a file, or a published editor such as tbdub-teacher:DIR."
        ),
        ModelFolder,
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="For lip and texture: the editor under the adapter, or a published editor; default: OUT/editor/export."
        ),
        ModelFolder,
    ] = None,
    accept_licence: options.AcceptLicence = None,
    set_: options.Set = None,
) -> None:
    """Train one phase of the model, or a SyncNet for its lip phase. The weights are written to OUT/PHASE/export.

    With --set train.sequence_parallel=N, N workers share each sample, for samples that are too large for one GPU.

    Example: xdub train generator --recipe tiny --data ds --out run --set train.steps=200
    """
    from xdub.cli.licences import agree, agree_to_base
    from xdub.model.editor_start import load_recipe_from_editor
    from xdub.train.run import train_phase

    agree(init_from, accept_licence)
    agree(base, None)
    loaded = load_recipe_from_editor(recipe, (init_from, base), set_ or [])
    agree_to_base(loaded)
    result = train_phase(phase.value, loaded, data, out, resume=resume, init_from=init_from, base=base)
    typer.echo(f"{result.phase} {result.status} at step {result.step}: {result.export or result.folder}")


def bootstrap(
    recipe: options.Recipe,
    data: options.Clips,
    out: Annotated[Path, typer.Option(help="Folder of all stages; the model is written to OUT/bundle.")],
    init: Annotated[
        str | None,
        typer.Option(help="Start every phase from this model's weights: tiny (shipped) or a model folder."),
        ModelFolder,
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            help="For a recipe without a generator: the published editor NAME:DIR that makes the pairs and is trained."
        ),
        ModelFolder,
    ] = None,
    accept_licence: options.AcceptLicence = None,
    set_: options.Set = None,
) -> None:
    """Train a model: generator, its pairs, editor, lip expert, texture expert.

    The same command continues a killed run.

    A recipe on a plain Wan, such as wan-5b-24gb, needs --set model.base=DIR.

    A recipe on a published editor, such as tbdub-lora-24gb, needs --generator NAME:DIR.

    Example: xdub bootstrap --recipe tiny --data ds --out run
    """
    from xdub.bootstrap import bootstrap as run_all
    from xdub.cli.licences import agree, agree_to_base
    from xdub.model.editor_start import load_recipe_from_editor

    agree(generator, accept_licence)
    loaded = load_recipe_from_editor(recipe, (generator,), set_ or [])
    agree_to_base(loaded)
    with stage_progress() as on_stage:
        model = run_all(loaded, data, out, init=init, generator=generator, on_stage=on_stage)
    typer.echo(f"model: {model}")


@runs.callback()
def _runs() -> None:
    pass


@runs.command()
def compare(
    names: Annotated[
        list[str], typer.Argument(help="Run folders, FOLDER/PHASE, or MLflow run ids.", metavar="RUN...")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Also write tables and loss curves to this HTML file.")
    ] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow's address, for run ids.")] = None,
) -> None:
    """Compare tracked runs: settings that differ, last metrics, loss curves.

    Example: xdub runs compare run-a run-b --out compare.html
    """
    from xdub.tracking.compare import compare_runs, print_comparison

    print_comparison(compare_runs(names, out, uri=tracking_uri))
