"""The verb plan: memory, FLOPs, hours and cost of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from xdub.cli import options
from xdub.cli.training import Phase
from xdub.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the verbs of this module to the command line."""
    app.command()(plan)


def plan(
    recipe: options.Recipe,
    gpus: Annotated[int, typer.Option(help="Number of GPUs; each has one worker.")],
    gpu: Annotated[
        str | None, typer.Option(help="GPU type, e.g. rtx-4090, a100-80gb; an unknown name lists the types.")
    ] = None,
    phase: Annotated[Phase | None, typer.Option(help="One phase; default: all.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            callback=options.existing_folders,
            help="Folder or URI of a data set, for the true size of its records. Repeatable.",
            metavar="DIR",
        ),
        options.PathOrUri,
    ] = None,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit",
            help="Propose micro batch, ZeRO stage, checkpoint policy, sequence parallelism and memory savings.",
        ),
    ] = False,
    efficiency: Annotated[
        float, typer.Option(help="Assumed share of the peak at which the GPU computes.")
    ] = 0.4,
    price: Annotated[float | None, typer.Option(help="US dollars for one GPU and hour.")] = None,
    hours: Annotated[
        float | None,
        typer.Option(
            help="Hours of video that pair making and dubbing generate; default: the paper's 400 of pairs, 1 of dubs."
        ),
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            help="The published editor that makes the pairs, NAME or NAME:DIR; default: the recipe's generator, or the "
            "editor that it starts from."
        ),
    ] = None,
    memory_gb: Annotated[float | None, typer.Option(help="Memory of the GPU, GiB.")] = None,
    tflops: Annotated[float | None, typer.Option(help="Dense bf16 peak of the GPU, TFLOP/s.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write all figures to this JSON file.")
    ] = None,
    set_: options.Set = None,
) -> None:
    """Predict parameters, memory, FLOPs, hours, cost and bytes of training, pairs and dubs. The verb needs no GPU.

    Example: xdub plan --recipe xdub-1b --gpus 32 --gpu a100-80gb --fit
    """
    from rich.console import Console

    from xdub.config import phase_facts
    from xdub.files.atomic import check_output
    from xdub.model.published import editor_name
    from xdub.plan.fit import fit as fit_phase
    from xdub.plan.fit import settings_to_pass
    from xdub.plan.gpus import known_gpu
    from xdub.plan.phase_plan import checked_assumptions, planned_recipe
    from xdub.plan.phase_plan import plan as plan_phases
    from xdub.plan.random_start import random_start_warning
    from xdub.plan.report import as_json, show
    from xdub.plan.sampling_plan import plan_sampling

    if phase is not None and phase_facts(phase.value).trains != "backbone":
        raise UserError(
            f"--phase {phase.value}: only phases of the recipe's model are planned; `xdub doctor` on a GPU "
            f"measures time and memory of one step of {phase.value}"
        )
    if json_file is not None:
        check_output(json_file, streams=True)
    card = known_gpu(gpu, memory_gb=memory_gb, tflops=tflops)
    checked_assumptions(efficiency, price, hours)
    chosen = ["train.micro_batch=1"] if fit else []
    loaded = planned_recipe(recipe, [*(set_ or ()), *chosen], gpus)
    if phase and generator:
        raise UserError(
            f"--generator {generator}: plans pairs, and --phase plans one phase alone; leave one out"
        )
    phases = [phase.value] if phase else loaded.phase_names
    folders = data or ()
    if fit:
        plans = [
            fit_phase(loaded, name, card, efficiency=efficiency, price=price, folders=folders)
            for name in phases
        ]
    else:
        plans = plan_phases(loaded, card, phases=phases, efficiency=efficiency, price=price, folders=folders)
    # A single phase is planned alone.
    sampling = []
    if phase is None:
        sampling = plan_sampling(
            loaded,
            card,
            gpus=gpus,
            efficiency=efficiency,
            price=price,
            hours=hours,
            generator=None if generator is None else editor_name(generator),
        )
    console = Console(width=None if Console().is_terminal else 160)
    show(
        plans,
        console,
        recipe=loaded.name,
        efficiency=efficiency,
        price=card.price if price is None else price,
        sampling=sampling,
    )
    for name in phases:
        # Other phases continue from the weights of an earlier one.
        warning = None if phase_facts(name).starts_from else random_start_warning(loaded, name)
        if warning is not None:
            typer.echo(f"xdub: warning: {warning}", err=True)
    if fit:
        typer.echo("pass to xdub train:")
        for each in plans:
            typer.echo(f"  {each.phase}: " + " ".join(f"--set {text}" for text in settings_to_pass(each)))
    if json_file is not None:
        json_file.write_text(
            json.dumps(as_json(plans, efficiency=efficiency, sampling=sampling), indent=1) + "\n"
        )
