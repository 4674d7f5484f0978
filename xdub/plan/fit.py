"""The fastest settings that fit: micro batch, ZeRO stage and checkpoint policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from xdub.config import Recipe
from xdub.errors import UserError
from xdub.model.checkpointing import POLICIES
from xdub.plan.gpus import GIB, Gpu
from xdub.plan.phase_plan import PhasePlan, plan_phase
from xdub.plan.rehearsal import activations

MARGIN = 0.08
"""ASSUMPTION: share of the GPU's memory that stays free. Predicted activations alone have been seen 12 % too low."""


def fit(
    recipe: Recipe,
    phase: str,
    gpu: Gpu,
    *,
    efficiency: float,
    price: float | None = None,
    folders: Sequence[Path] = (),
) -> PhasePlan:
    """The plan of least time that leaves MARGIN free; among equals the lowest stage. UserError if nothing fits."""
    best: PhasePlan | None = None
    least = float("inf")
    for policy in POLICIES:
        sample = activations(recipe, phase, policy, 1)
        for candidate in _candidates(recipe, phase, policy):
            found = plan_phase(
                candidate, phase, gpu, efficiency=efficiency, price=price, folders=folders, sample=sample
            )
            least = min(least, found.memory.total)
            fits = found.memory.total <= gpu.memory * (1 - MARGIN)
            if fits and (best is None or _order(found) < _order(best)):
                best = found
    if best is None:
        raise UserError(
            f"phase {phase} does not fit on {recipe.train.workers} x {gpu.name}: it takes at least "
            f"{least / GIB:.1f} GiB a GPU, {gpu.memory * (1 - MARGIN) / GIB:.1f} can be used; "
            "take a larger GPU, a shorter window or a smaller video.size"
        )
    return best


def settings_to_pass(found: PhasePlan) -> list[str]:
    """What a plan's settings are as `--set` options of `xdub train`."""
    names = ("micro_batch", "zero_stage", "activation_checkpointing")
    return [f"train.workers={found.gpus}"] + [
        f"phases.{found.phase}.{name}={found.settings[name]}" for name in names
    ]


def _order(found: PhasePlan) -> tuple[float, int]:
    stage = found.settings["zero_stage"]
    assert isinstance(stage, int)
    return (round(found.step_seconds, 6), stage)


def _candidates(recipe: Recipe, phase: str, policy: str) -> Iterator[Recipe]:
    """The recipe with every micro batch that divides a worker's share of the global batch, and every ZeRO stage."""
    train = recipe.for_phase(phase)
    share = train.global_batch // train.workers
    for micro_batch in (size for size in range(1, share + 1) if share % size == 0):
        for stage in (0, 1, 2, 3):
            chosen = {"micro_batch": micro_batch, "zero_stage": stage, "activation_checkpointing": policy}
            section = recipe.phase(phase)
            section = replace(section, train={**section.train, **chosen})
            yield replace(recipe, phases={**recipe.phases, phase: section})
