"""The plan of a phase: memory, FLOPs, time, money, bytes, from recipe, GPU and count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xdub.config import Recipe, load_recipe
from xdub.errors import UserError
from xdub.plan.flops import step_parts, train_step_flops
from xdub.plan.gpus import Gpu
from xdub.plan.memory import Memory, memory
from xdub.plan.parameters import Parameters, parameters
from xdub.plan.rehearsal import Activations, activations
from xdub.plan.shapes import shapes
from xdub.plan.storage import Data, data

GPUS_PER_NODE = 8
NETWORK = 25e9
"""ASSUMPTION: bytes/s a GPU has between machines (200 Gbit/s each)."""
MAX_GPUS = 65_536


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """What one phase takes. Bytes, seconds, FLOP; money in US dollars."""

    phase: str
    gpus: int
    gpu: Gpu
    parameters: Parameters
    tokens: int
    """Of one sample."""
    settings: dict[str, object]
    """Micro batch, global batch, accumulation, ZeRO stage, checkpoint policy, precision."""
    memory: Memory
    fits: bool
    step_flops: dict[str, float]
    """On all GPUs, by part."""
    model_flops: float
    """The numerator of MFU."""
    compute_seconds: float
    communication_seconds: float
    """Not hidden behind computation."""
    steps: int
    hours: float
    cost: float
    mfu: float
    """That follows from the stated efficiency."""
    read_bytes_per_second: float
    data: Data

    @property
    def step_seconds(self) -> float:
        return self.compute_seconds + self.communication_seconds


def planned_recipe(name: str | Path, overrides: Sequence[str], gpus: int) -> Recipe:
    """The recipe with one worker a GPU. UserError if a batch does not divide."""
    if not 0 < gpus <= MAX_GPUS:
        raise UserError(f"--gpus {gpus}: give a number from 1 to {MAX_GPUS}")
    return load_recipe(name, [*overrides, f"train.workers={gpus}"])


def checked_assumptions(efficiency: float, price: float | None) -> None:
    """UserError for what cannot be a share or a price."""
    if not 0 < efficiency <= 1:
        raise UserError(f"--efficiency {efficiency:g}: a share of the peak, above 0 and at most 1")
    if price is not None and not 0 <= price < 1e6:
        raise UserError(f"--price {price:g}: US dollars an hour and GPU, zero or more")


def plan(
    recipe: Recipe,
    gpu: Gpu,
    *,
    phases: Sequence[str] | None = None,
    efficiency: float = 0.4,
    price: float | None = None,
    folders: Sequence[Path] = (),
) -> list[PhasePlan]:
    """Plans of ``phases``, or of all that the recipe trains.

    ``efficiency``: share of the GPU's peak that all its FLOPs, repeated ones too, run at.
    """
    checked_assumptions(efficiency, price)
    return [
        plan_phase(recipe, phase, gpu, efficiency=efficiency, price=price, folders=folders)
        for phase in phases or recipe.phase_names
    ]


def plan_phase(
    recipe: Recipe,
    phase: str,
    gpu: Gpu,
    *,
    efficiency: float,
    price: float | None = None,
    folders: Sequence[Path] = (),
    sample: Activations | None = None,
) -> PhasePlan:
    """The plan of one phase on ``train.workers`` GPUs. ``sample``: one sample's activations, where they are known."""
    train = recipe.for_phase(phase)
    gpus, policy = train.workers, train.activation_checkpointing
    needed = memory(recipe, phase, sample or activations(recipe, phase, policy, 1), gpus)
    parts, model = step_parts(recipe, phase), train_step_flops(recipe, phase)
    compute = sum(parts.values()) / (gpus * gpu.tflops * 1e12 * efficiency)
    talk = communication_bytes(recipe, phase) / (gpu.link if gpus <= GPUS_PER_NODE else NETWORK)
    seconds = compute + (talk if gpus > 1 else 0.0)
    hours, facts = train.steps * seconds / 3600, data(recipe, phase, folders)
    micro_batch = train.micro_batch_of(gpus)
    return PhasePlan(
        phase=phase,
        gpus=gpus,
        gpu=gpu,
        parameters=parameters(recipe, phase),
        tokens=shapes(recipe, phase).tokens,
        settings={
            "micro_batch": micro_batch,
            "global_batch": train.global_batch,
            "accumulation": train.global_batch // (micro_batch * gpus),
            "zero_stage": train.zero_stage,
            "activation_checkpointing": policy,
            "precision": train.precision,
        },
        memory=needed,
        fits=needed.total <= gpu.memory,
        step_flops=parts,
        model_flops=model,
        compute_seconds=compute,
        communication_seconds=seconds - compute,
        steps=train.steps,
        hours=hours,
        cost=hours * gpus * (gpu.price if price is None else price),
        mfu=model / (seconds * gpus * gpu.tflops * 1e12),
        read_bytes_per_second=train.global_batch * facts.record_bytes / seconds,
        data=facts,
    )


def communication_bytes(recipe: Recipe, phase: str) -> float:
    """Bytes a GPU sends in one step: gradients reduced and weights gathered, as ZeRO's stages do it."""
    train, count = recipe.for_phase(phase), parameters(recipe, phase)
    width = 2 if train.precision == "bf16" else 4
    micro_batches = train.global_batch // (train.micro_batch_of(train.workers) * train.workers)
    gradients, weights = width * count.trained, width * count.total
    if train.zero_stage <= 1:  # once a step: an all-reduce is a reduction and a gathering
        return 2.0 * gradients
    if train.zero_stage == 2:  # gradients leave after every micro batch, for they are not kept whole
        return float(micro_batches * gradients + gradients)
    return float(micro_batches * (2 * weights + gradients))
