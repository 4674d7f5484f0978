"""The plan of a phase: memory, FLOPs, time, cost and bytes, from recipe, GPU type and number of GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xdub.config import Recipe, load_recipe
from xdub.errors import UserError
from xdub.plan.flops import compute_seconds, encoder_parts, step_parts, train_step_flops
from xdub.plan.gpus import Gpu
from xdub.plan.latent_plan import LatentPlan, plan_latents
from xdub.plan.memory import Memory, memory
from xdub.plan.network import Network, Parameters, count_network
from xdub.plan.offload_cost import training_transfer_seconds
from xdub.plan.rehearsal import Activations, activations
from xdub.plan.shapes import shapes
from xdub.plan.storage import Data, data
from xdub.precision import number_bytes

GPUS_PER_NODE = 8
"""Largest number of GPUs whose traffic stays on the links inside one machine."""
NETWORK = 25e9
"""ASSUMPTION: bytes/s of one GPU between machines (200 Gbit/s each)."""
MAX_GPUS = 65_536
"""Largest number of GPUs that a plan accepts."""


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """Resources of one phase, in bytes, seconds, FLOPs and US dollars."""

    phase: str
    gpus: int
    gpu: Gpu
    parameters: Parameters
    tokens: int
    """Tokens of one sample."""
    settings: dict[str, object]
    """Batches, ZeRO stage, checkpoint policy, number formats and offload."""
    memory: Memory
    fits: bool
    step_flops: dict[str, float]
    """FLOPs of one step on all GPUs, by part."""
    model_flops: float
    """FLOPs of one step in the numerator of MFU."""
    compute_seconds: float
    """Seconds of one step that all FLOPs take at the assumed efficiency."""
    exchanged_bytes: float
    """Bytes that a GPU sends in one step to those that share its samples; 0 where none does."""
    communication_seconds: float
    """Seconds of one step for communication, as if none of it ran during computation, and those that offload adds."""
    steps: int
    hours: float
    cost: float
    mfu: float
    """Model FLOPs utilisation at the assumed efficiency."""
    read_bytes_per_second: float
    data: Data
    latents: LatentPlan
    """The frozen encoders in every step against a cache."""
    encoder_seconds: float
    """Seconds of one step that codec and audio encoder take, or would take without a cache."""

    @property
    def name(self) -> str:
        """Name of the phase, the title of its column."""
        return self.phase

    @property
    def step_seconds(self) -> float:
        """Seconds of one optimizer step."""
        return self.compute_seconds + self.communication_seconds


def planned_recipe(name: str | Path, overrides: Sequence[str], gpus: int) -> Recipe:
    """Load the recipe with one worker for each GPU. UserError if a batch does not divide."""
    if not 0 < gpus <= MAX_GPUS:
        raise UserError(f"--gpus {gpus}: use a number from 1 to {MAX_GPUS}")
    return load_recipe(name, [*overrides, f"train.workers={gpus}"])


def checked_assumptions(efficiency: float, price: float | None, hours: float | None = None) -> None:
    """Raise UserError for an efficiency that is no share, or a price or hours of video out of range."""
    if hours is not None and not 0 < hours < 1e6:
        raise UserError(f"--hours {hours:g}: use hours of video above zero and below a million")
    if not 0 < efficiency <= 1:
        raise UserError(f"--efficiency {efficiency:g}: use a share of the peak, above 0 and at most 1")
    if price is not None and not 0 <= price < 1e6:
        raise UserError(f"--price {price:g}: use US dollars for one GPU and hour, zero or more")


def plan(
    recipe: Recipe,
    gpu: Gpu,
    *,
    phases: Sequence[str] | None = None,
    efficiency: float = 0.4,
    price: float | None = None,
    folders: Sequence[str | Path] = (),
) -> list[PhasePlan]:
    """Plan ``phases``, or all that the recipe trains.

    ``efficiency``: share of the GPU's peak at which all FLOPs run, repeated ones too.
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
    folders: Sequence[str | Path] = (),
    network: Network | None = None,
    sample: Activations | None = None,
) -> PhasePlan:
    """Plan one phase on ``train.workers`` GPUs.

    ``network`` and ``sample`` (activations of one sample) are counts of an earlier call, which saves time.
    """
    train, network = recipe.for_phase(phase), network or count_network(recipe, phase)
    gpus, policy, shared = train.workers, train.activation_checkpointing, train.sequence_parallel
    sample = sample or activations(recipe, phase, policy, 1, capability=gpu.capability)
    needed = memory(recipe, phase, network.parameters, sample, gpus)
    parts, model = step_parts(recipe, phase, network), train_step_flops(recipe, phase, network)
    compute = compute_seconds(parts, train.precision, gpu) / (gpus * efficiency)
    sent = communication_bytes(recipe, phase, network.parameters)
    exchanged = float(train.global_batch // train.groups_of(gpus) * sample.exchanged)
    communication = sent / _speed(gpu, gpus) + exchanged / _speed(gpu, shared)
    duration = compute + (communication if gpus > 1 else 0.0)
    duration += training_transfer_seconds(train, network.parameters, compute)
    hours, sizes = train.steps * duration / 3600, data(recipe, phase, network.parameters, folders)
    micro_batch = train.micro_batch_of(gpus)
    price = gpu.price if price is None else price
    latents = plan_latents(
        recipe, phase, gpu, efficiency=efficiency, price=price, hours=hours, folders=folders
    )
    encoders = compute_seconds(encoder_parts(recipe, phase), train.precision, gpu) / (gpus * efficiency)
    sample_bytes = latents.sample_bytes if latents.cached else sizes.record_bytes
    return PhasePlan(
        phase=phase,
        gpus=gpus,
        gpu=gpu,
        parameters=network.parameters,
        tokens=shapes(recipe, phase).tokens,
        settings={
            "micro_batch": micro_batch,
            "global_batch": train.global_batch,
            "accumulation": train.global_batch // (micro_batch * train.groups_of(gpus)),
            "sequence_parallel": shared,
            "zero_stage": train.zero_stage,
            "activation_checkpointing": policy,
            "precision": train.precision,
            "base_dtype": train.base_dtype,
            "optimizer": train.optimizer,
            "offload": train.offload,
        },
        memory=needed,
        fits=needed.total <= gpu.memory,
        step_flops=parts,
        model_flops=model,
        compute_seconds=compute,
        exchanged_bytes=exchanged,
        communication_seconds=duration - compute,
        steps=train.steps,
        hours=hours,
        cost=hours * gpus * price,
        mfu=model / (duration * gpus * gpu.tflops * 1e12),
        # Each of the GPUs that share a sample reads it.
        read_bytes_per_second=shared * train.global_batch * sample_bytes / duration,
        data=sizes,
        latents=latents,
        encoder_seconds=encoders,
    )


def _speed(gpu: Gpu, gpus: int) -> float:
    """Return the bytes/s that one of ``gpus`` GPUs sends to the others; the workers of a machine are neighbours."""
    return gpu.link if gpus <= GPUS_PER_NODE else NETWORK


def communication_bytes(recipe: Recipe, phase: str, count: Parameters) -> float:
    """Return the bytes that a GPU sends in one step to reduce gradients and gather weights, under the ZeRO stage."""
    train = recipe.for_phase(phase)
    width = number_bytes(train.precision)
    groups = train.groups_of(train.workers)
    micro_batches = train.global_batch // (train.micro_batch_of(train.workers) * groups)
    # Compact storage is in buffers, which every rank keeps whole.
    gradients, weights = width * count.trained, width * (count.total - count.frozen_blocks.stored)
    if train.zero_stage <= 1:  # once a step: an all-reduce is a reduction and a gathering
        return 2.0 * gradients
    if train.zero_stage == 2:  # gradients are sent after every micro batch, because no rank keeps them whole
        return float(micro_batches * gradients + gradients)
    return float(micro_batches * (2 * weights + gradients))
