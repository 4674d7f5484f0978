"""Print a plan as tables, and convert it to JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xdub.plan.fit import DEFAULTS, settings_to_pass
from xdub.plan.gpus import GIB
from xdub.plan.latent_rows import latent_rows
from xdub.plan.phase_plan import PhasePlan
from xdub.plan.sampling_plan import SamplingPlan

MEMORY_NAMES = {
    "averaged_weights": "averaged weights (EMA)",
    "frozen_networks": "codec, audio, loss networks",
    "activations_kept": "activations kept",
    "activations_working": "activations working",
}
"""Field of `Memory` -> row of the table, where the two differ."""


def as_json(
    plans: Sequence[PhasePlan], *, efficiency: float, sampling: Sequence[SamplingPlan] = ()
) -> dict[str, Any]:
    """Return everything that is printed, and the numbers behind it, by phase, and for pairs and dubbing."""
    phases = {}
    for plan in plans:
        raw = asdict(plan)
        raw["memory"]["total"] = plan.memory.total
        raw["step_seconds"], raw["set"] = plan.step_seconds, settings_to_pass(plan)
        raw["data"]["epochs"] = plan.data.epochs
        raw["latents"]["cheaper"] = plan.latents.cheaper
        phases[plan.phase] = raw
    others = {}
    for plan in sampling:
        raw = asdict(plan)
        raw["memory"]["total"] = plan.memory.total
        raw |= {"gpu_hours": plan.gpu_hours, "hours": plan.hours, "gpus_for_a_day": plan.gpus_for_a_day}
        others[plan.name] = raw
    return {"efficiency": efficiency, "phases": phases} | ({"sampling": others} if others else {})


def show(
    plans: Sequence[PhasePlan],
    console: Console,
    *,
    recipe: str,
    efficiency: float,
    price: float,
    sampling: Sequence[SamplingPlan] = (),
) -> None:
    """Print the tables with one column for each phase, and those of pair making and dubbing."""
    first = plans[0]
    console.print(
        f"[bold]{escape(recipe)}[/bold] on {first.gpus} x {first.gpu.name} "
        f"({first.gpu.memory / GIB:.1f} GiB, {first.gpu.tflops:g} TFLOP/s bf16), "
        f"at an ASSUMED {efficiency:.0%} of peak and {price:.2f} $/GPU h"
    )
    console.print(_table("settings", plans, _settings(plans)))
    console.print(_table("memory of one GPU, GiB", plans, _memory(plans)))
    console.print(_table("one step, TFLOP on all GPUs", plans, _flops(plans)))
    console.print(_table("time, money, data", plans, _time(plans)))
    console.print(_table("frozen encoders: in every step, or once into a cache", plans, latent_rows(plans)))
    if sampling:
        console.print(_table("pairs and dubbing", sampling, _sampling(sampling)))
        console.print(_table("memory of one GPU, GiB", sampling, _memory(sampling)))
        windows = [plan.window_flops for plan in sampling]
        console.print(_table("one window, TFLOP", sampling, _teraflops(windows, digits=2)))
    for plan in (*plans, *sampling):
        _remark(plan, console)


def _table(title: str, plans: Sequence[PhasePlan | SamplingPlan], rows: dict[str, list[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for plan in plans:
        table.add_column(plan.name, justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells, end_section=name == "total")
    return table


def _settings(plans: Sequence[PhasePlan]) -> dict[str, list[str]]:
    rows = {
        "parameters trained": [_count(p.parameters.trained) for p in plans],
        "parameters frozen": [_count(p.parameters.frozen) for p in plans],
        "tokens of a sample": [f"{p.tokens:,}" for p in plans],
    }
    names = {
        name: name.replace("_", " ")
        for name in plans[0].settings
        if name not in DEFAULTS or any(p.settings[name] != DEFAULTS[name] for p in plans)
    }
    return rows | {
        shown: ["-" if p.settings[name] is None else str(p.settings[name]) for p in plans]
        for name, shown in names.items()
    }


def _memory(plans: Sequence[PhasePlan | SamplingPlan]) -> dict[str, list[str]]:
    parts = [asdict(p.memory) for p in plans]
    rows = {
        MEMORY_NAMES.get(name, name): [f"{part[name] / GIB:.2f}" for part in parts]
        for name in parts[0]
        if any(part[name] for part in parts)
    }
    rows["total"] = [f"{p.memory.total / GIB:.1f}" for p in plans]
    return rows | {"fits": ["yes" if p.fits else "[bold red]NO[/bold red]" for p in plans]}


def _flops(plans: Sequence[PhasePlan]) -> dict[str, list[str]]:
    rows = _teraflops([p.step_flops for p in plans], digits=1)
    return rows | {"model FLOPs (for MFU)": [f"{p.model_flops / 1e12:,.1f}" for p in plans]}


def _sampling(plans: Sequence[SamplingPlan]) -> dict[str, list[str]]:
    return {
        "precision": [p.precision for p in plans],
        "frames of a window": [str(p.frames) for p in plans],
        "windows sampled together": [str(p.batch) for p in plans],
        "evaluations of the model": [str(p.evaluations) for p in plans],
        "hours of video": [f"{p.hours_of_video:g}" for p in plans],
        "windows": [f"{p.windows:,.0f}" for p in plans],
        "one window on one GPU, s": [f"{p.window_seconds:.2f}" for p in plans],
        "time, h": [f"{p.hours:,.1f}" for p in plans],
        "GPU hours": [f"{p.gpu_hours:,.0f}" for p in plans],
        "GPU hours for an hour of video": [f"{p.gpu_hours / p.hours_of_video:,.2f}" for p in plans],
        "GPUs to finish in a day": [f"{p.gpus_for_a_day:,}" for p in plans],
        "cost, $": [f"{p.cost:,.0f}" for p in plans],
    }


def _teraflops(columns: Sequence[Mapping[str, float]], *, digits: int) -> dict[str, list[str]]:
    """Return a row for every part of the FLOPs, and their total."""
    names = dict.fromkeys(name for parts in columns for name in parts)
    rows = {name: [f"{parts.get(name, 0) / 1e12:,.{digits}f}" for parts in columns] for name in names}
    return rows | {"total": [f"{sum(parts.values()) / 1e12:,.{digits}f}" for parts in columns]}


def _time(plans: Sequence[PhasePlan]) -> dict[str, list[str]]:
    return {
        "step, s": [f"{p.step_seconds:.2f}" for p in plans],
        "of which communication, s": [f"{p.communication_seconds:.2f}" for p in plans],
        **_exchanges(plans),
        "resulting MFU": [f"{p.mfu:.1%}" for p in plans],
        "steps": [f"{p.steps:,}" for p in plans],
        "hours of video seen": [f"{p.data.hours_seen:,.1f}" for p in plans],
        "epochs of the paper's data": [f"{p.data.epochs:.2f} x {p.data.paper_hours:g} h" for p in plans],
        "epochs of the paper": [
            "-" if p.data.paper_epochs is None else f"{p.data.paper_epochs:g}" for p in plans
        ],
        "time, h": [f"{p.hours:,.1f}" for p in plans],
        "GPU hours": [f"{p.hours * p.gpus:,.0f}" for p in plans],
        "cost, $": [f"{p.cost:,.0f}" for p in plans],
        "record, MB": [f"{p.data.record_bytes / 1e6:.2f}" for p in plans],
        "record size from": [p.data.source for p in plans],
        "readers deliver, MB/s": [f"{p.read_bytes_per_second / 1e6:,.1f}" for p in plans],
        "data of the paper's hours, TB": [f"{p.data.storage / 1e12:.2f}" for p in plans],
        "one checkpoint, GB": [f"{p.data.checkpoint / 1e9:.2f}" for p in plans],
        "checkpoints kept, GB": [f"{p.data.checkpoints / 1e9:.1f}" for p in plans],
    }


def _exchanges(plans: Sequence[PhasePlan]) -> dict[str, list[str]]:
    """Return a row of the bytes between GPUs that share samples, if any phase has them."""
    if not any(plan.exchanged_bytes for plan in plans):
        return {}
    return {"sent to share samples, GB": [f"{plan.exchanged_bytes / 1e9:.1f}" for plan in plans]}


def _remark(plan: PhasePlan | SamplingPlan, console: Console) -> None:
    if not plan.fits:
        fixes = {"pairs": "lower pairs.batch", "dubbing": "use a larger GPU or a shorter dub.window"}
        console.print(
            f"{plan.name}: needs {plan.memory.total / GIB:.1f} GiB, the GPU has {plan.gpu.memory / GIB:.1f}: "
            f"{fixes.get(plan.name, 'try --fit')}",
            style="red",
        )


def _count(number: int) -> str:
    return f"{number / 1e9:.3f} B" if number >= 1e9 else f"{number / 1e6:.2f} M"
