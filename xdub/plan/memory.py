"""Memory of one GPU by part."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from xdub.config import Recipe
from xdub.plan.codec_cost import codec_bytes
from xdub.plan.gpus import GIB
from xdub.plan.loss_networks import loss_network_bytes, pixel_loss_bytes
from xdub.plan.parameters import Parameters, parameters
from xdub.plan.rehearsal import Activations

BUCKET = 500_000_000
"""Elements of the buffer in which DeepSpeed collects gradients to exchange: its default, whatever the model's size."""
LIVE_PARAMETERS = 1_000_000_000
"""Weights that ZeRO-3 may leave gathered; its default."""
RESERVE = 2 * GIB
"""ASSUMPTION: CUDA context, NCCL, cuBLAS workspaces, fragmentation."""


@dataclass(frozen=True, kw_only=True)
class ModelStates:
    """Bytes on one GPU of what an optimizer step changes."""

    weights: float
    gradients: float
    """In training precision, and the fp32 copy that the step makes of this rank's part; ZeRO-3 has one of the two at a
    time, group by group."""
    optimizer: float
    """fp32 master weights (in bf16) and AdamW's two moments."""

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer


def model_states(
    count: Parameters, *, stage: int, gpus: int, precision: str, largest_layer: int
) -> ModelStates:
    """Sharded as ZeRO shards it: stage 1 the optimizer, 2 also gradients, 3 also weights.

    ``largest_layer``: parameters of the largest single layer, which ZeRO-3 holds gathered, with its gradient.
    """
    width = 2 if precision == "bf16" else 4
    mine = count.trained / gpus  # this rank's part of what is trained
    gradients = width * (mine if stage == 2 else count.trained if stage < 2 else 0)
    if precision == "bf16" or stage:
        gradients += 4 * (mine if stage else count.trained)
    states = 8 + (4 if precision == "bf16" or stage else 0)  # fp32 without ZeRO trains its weights in place
    weights = width * (count.total / gpus if stage == 3 else count.total)
    return ModelStates(
        weights=weights + (2 * width * largest_layer if stage == 3 else 0),
        gradients=gradients,
        optimizer=states * (mine if stage else count.trained),
    )


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU."""

    weights: float
    gradients: float
    optimizer: float
    averaged_weights: float
    """fp32, sharded over the workers."""
    frozen_networks: float
    """Codec, and the networks of the losses."""
    activations_kept: float
    """By the forward pass, under the checkpoint policy."""
    activations_working: float
    """What comes and goes on top: a block computed again and gradients on their way, or decoding for pixel losses."""
    buffers: float
    """Of communication."""
    reserve: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


def memory(recipe: Recipe, phase: str, kept: Activations, gpus: int) -> Memory:
    """Memory of a phase with the recipe's ZeRO stage and micro batch; ``kept`` are one sample's activations."""
    train, count = recipe.for_phase(phase), parameters(recipe, phase)
    states = model_states(
        count,
        stage=train.zero_stage,
        gpus=gpus,
        precision=train.precision,
        largest_layer=largest_layer(recipe),
    )
    micro_batch = train.micro_batch_of(gpus)
    # The graph of the pixel losses is gone when the backbone's backward pass begins.
    working = max(kept.working * micro_batch, pixel_loss_bytes(recipe, phase, micro_batch))
    return Memory(
        weights=states.weights,
        gradients=states.gradients,
        optimizer=states.optimizer,
        averaged_weights=4 * count.trained / gpus if train.ema else 0,
        frozen_networks=codec_bytes(recipe) + loss_network_bytes(recipe, phase),
        activations_kept=kept.kept * micro_batch,
        activations_working=working,
        buffers=_buffers(train.zero_stage, count, 2 if train.precision == "bf16" else 4),
        reserve=RESERVE,
    )


def _buffers(stage: int, count: Parameters, width: int) -> float:
    if stage == 0:
        return width * min(BUCKET, count.trained)
    if stage == 3:  # two buckets, for exchange and computation overlap; and weights left gathered
        return width * (2 * BUCKET + min(count.total, LIVE_PARAMETERS))
    return width * BUCKET


def largest_layer(recipe: Recipe) -> int:
    """Parameters of the backbone's largest single layer: an FFN's, or the shared modulation."""
    size = recipe.model.hidden_size
    return max(size * int(recipe.model.ffn_ratio * size) + size, 9 * size * size + 9 * size)
