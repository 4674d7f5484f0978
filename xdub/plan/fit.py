"""Search for the fastest settings that fit: micro batch, ZeRO stage, checkpoint policy, GPUs that share a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from xdub.config import Recipe
from xdub.errors import UserError
from xdub.model.checkpointing import POLICIES
from xdub.model.lora import adapter_of
from xdub.plan.gpus import GIB, Gpu
from xdub.plan.network import Network, count_network
from xdub.plan.phase_plan import PhasePlan, plan_phase
from xdub.plan.rehearsal import Activations, activations

MARGIN = 0.08
"""ASSUMPTION: share of the GPU's memory that stays free. Predictions of activations were up to 12 % too low."""

LADDER = (
    ("base_dtype", "int8"),
    ("optimizer", "adamw8bit"),
    ("offload", "blocks"),
    ("offload", "optimizer+blocks"),
)
"""Options that save memory, in the order in which they are tried where nothing fits: each costs more than the last."""
WITHOUT_ADAPTER = (("optimizer", "adamw8bit"), ("offload", "optimizer"))
"""The same for a phase that trains all weights."""
DEFAULTS = {"base_dtype": None, "optimizer": "adamw", "offload": "none"}
"""Values of these options that need not be set."""


def fit(
    recipe: Recipe,
    phase: str,
    gpu: Gpu,
    *,
    efficiency: float,
    price: float | None = None,
    folders: Sequence[str | Path] = (),
) -> PhasePlan:
    """Return the fastest plan that leaves MARGIN free; of equally fast plans, the one with the lowest ZeRO stage.

    Samples are shared by more GPUs than in the recipe only if no other settings fit, and options that save memory
    (`LADDER`) are added only if that does not help. UserError if no settings fit at all.
    """
    least = float("inf")
    networks, samples = dict[str | None, Network](), dict[tuple[str | None, str, int], Activations]()
    for leaner, shared in product(_ladder(recipe, phase), _shares(recipe, phase)):
        # Of the options, the storage of the base alone changes the network and its activations.
        storage, best = leaner.for_phase(phase).base_dtype, None
        if storage not in networks:
            networks[storage] = count_network(leaner, phase)
        for policy in POLICIES:
            key = (storage, policy, shared)
            for candidate in _candidates(leaner, phase, policy, shared):
                if key not in samples:
                    samples[key] = activations(candidate, phase, policy, 1, capability=gpu.capability)
                plan = plan_phase(
                    candidate,
                    phase,
                    gpu,
                    efficiency=efficiency,
                    price=price,
                    folders=folders,
                    network=networks[storage],
                    sample=samples[key],
                )
                least = min(least, plan.memory.total)
                fits = plan.memory.total <= gpu.memory * (1 - MARGIN)
                if fits and (best is None or _order(plan) < _order(best)):
                    best = plan
        if best is not None:
            return best
    raise UserError(
        f"phase {phase} does not fit on {recipe.train.workers} x {gpu.name}: it needs at least "
        f"{least / GIB:.1f} GiB a GPU, {gpu.memory * (1 - MARGIN) / GIB:.1f} can be used; "
        "use a larger GPU, a shorter window or a smaller video.size"
    )


def settings_to_pass(plan: PhasePlan) -> list[str]:
    """Return a plan's settings as arguments of `xdub train --set`."""
    names = ["micro_batch", "zero_stage", "activation_checkpointing"]
    if plan.settings["sequence_parallel"] != 1:
        names.append("sequence_parallel")
    names += [name for name, default in DEFAULTS.items() if plan.settings[name] != default]
    return [f"train.workers={plan.gpus}"] + [
        f"phases.{plan.phase}.{name}={plan.settings[name]}" for name in names
    ]


def _order(plan: PhasePlan) -> tuple[float, int]:
    stage = plan.settings["zero_stage"]
    assert isinstance(stage, int)
    return (round(plan.step_seconds, 6), stage)


def _shares(recipe: Recipe, phase: str) -> Iterator[int]:
    """Yield the numbers of GPUs that can share a sample, from the recipe's number on."""
    train = recipe.for_phase(phase)
    for shared in range(train.sequence_parallel, train.workers + 1):
        groups, rest = divmod(train.workers, shared)
        if not rest and train.global_batch % groups == 0 and recipe.model.num_heads % shared == 0:
            yield shared


def _candidates(recipe: Recipe, phase: str, policy: str, shared: int) -> Iterator[Recipe]:
    """Yield the recipe with each ZeRO stage and each micro batch that divides a group's share of the global batch."""
    train = recipe.for_phase(phase)
    share = train.global_batch * shared // train.workers
    for micro_batch in (size for size in range(1, share + 1) if share % size == 0):
        # A stage below 2 would sum the gradients of several micro batches in bf16.
        sums_bf16 = train.precision == "bf16" and micro_batch < share
        for stage in (2, 3) if sums_bf16 else (0, 1, 2, 3):
            chosen = {"micro_batch": micro_batch, "zero_stage": stage, "activation_checkpointing": policy}
            chosen["sequence_parallel"] = shared
            if not any(replace(train, **chosen).failed_checks("train", "")):
                yield _changed(recipe, phase, chosen)


def _ladder(recipe: Recipe, phase: str) -> Iterator[Recipe]:
    """Yield the recipe, and then with one more option that saves memory at a time; its own options stay."""
    yield recipe
    adapter = adapter_of(recipe, phase) is not None
    train, chosen = recipe.for_phase(phase), dict[str, Any]()
    for name, value in LADDER if adapter else WITHOUT_ADAPTER:
        if getattr(train, name) == DEFAULTS[name]:
            chosen |= {name: value}
            # `_candidates` replaces this stage and policy, which go with all options.
            settings = chosen | {"zero_stage": 1, "activation_checkpointing": "full"}
            if not any(replace(train, **settings).failed_checks("train", "")):
                yield _changed(recipe, phase, settings)


def _changed(recipe: Recipe, phase: str, chosen: Mapping[str, Any]) -> Recipe:
    """Return the recipe with train settings of one phase."""
    section = recipe.phase(phase)
    section = replace(section, train={**section.train, **chosen})
    return replace(recipe, phases={**recipe.phases, phase: section})
