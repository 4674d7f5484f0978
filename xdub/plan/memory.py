"""Memory of one GPU by part."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from xdub.config import Recipe
from xdub.plan.codec_cost import codec_bytes, encoding_bytes, video_bytes
from xdub.plan.gpus import GIB
from xdub.plan.loss_networks import loss_network_bytes, pixel_loss_bytes
from xdub.plan.network import Parameters
from xdub.plan.rehearsal import Activations
from xdub.plan.speech_cost import speech_bytes
from xdub.precision import number_bytes

BUCKET = 500_000_000
"""Elements of the buffer in which DeepSpeed collects gradients to exchange: its default for models of any size."""
LIVE_PARAMETERS = 1_000_000_000
"""Number of weights that ZeRO-3 may keep gathered: its default."""
RESERVE = 2 * GIB
"""ASSUMPTION: CUDA context, NCCL, cuBLAS workspaces, fragmentation."""


@dataclass(frozen=True, kw_only=True)
class ModelStates:
    """Bytes on one GPU of weights, gradients and optimizer."""

    weights: float
    """Weights in training precision, frozen ones included."""
    gradients: float
    """Gradients in training precision, and the fp32 copy of this rank's part that the optimizer step computes. ZeRO-3
    holds only one of the two at a time, group by group."""
    optimizer: float
    """fp32 master weights (when training in bf16) and AdamW's two moments."""

    @property
    def total(self) -> float:
        """Sum of weights, gradients and optimizer."""
        return self.weights + self.gradients + self.optimizer


def model_states(count: Parameters, *, stage: int, gpus: int, precision: str) -> ModelStates:
    """Return the bytes that ZeRO leaves on one GPU: stage 1 shards the optimizer, 2 also gradients, 3 also weights."""
    width = number_bytes(precision)
    mine = count.trained / gpus  # this rank's part of the trained parameters
    gradients = width * (mine if stage == 2 else count.trained if stage < 2 else 0)
    if precision == "bf16" or stage:
        gradients += 4 * (mine if stage else count.trained)
    states = 8 + (4 if precision == "bf16" or stage else 0)  # fp32 without ZeRO trains its weights in place
    weights = width * (count.total / gpus if stage == 3 else count.total)
    return ModelStates(
        weights=weights + (2 * width * count.largest_layer if stage == 3 else 0),
        gradients=gradients,
        optimizer=states * (mine if stage else count.trained),
    )


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU."""

    weights: float
    """Weights, see `ModelStates`."""
    gradients: float
    """Gradients, see `ModelStates`."""
    optimizer: float
    """State of the optimizer, see `ModelStates`."""
    averaged_weights: float
    """fp32 moving average (EMA), sharded over the workers."""
    frozen_networks: float
    """Codec, audio encoder and networks of the losses."""
    activations_kept: float
    """Bytes that the forward pass keeps under the checkpoint policy."""
    activations_working: float
    """Further, temporary bytes: a block computed again and gradients between layers, decoding for pixel losses, or
    encoding."""
    buffers: float
    """Buffers of communication."""
    reserve: float
    """Memory outside of tensors, see RESERVE."""

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(asdict(self).values())


def memory(recipe: Recipe, phase: str, count: Parameters, sample: Activations, gpus: int) -> Memory:
    """Return a phase's memory with the recipe's ZeRO stage and micro batch.

    ``sample``: activations of one sample.
    """
    train = recipe.for_phase(phase)
    states = model_states(count, stage=train.zero_stage, gpus=gpus, precision=train.precision)
    micro_batch = train.micro_batch_of(gpus)
    kept, window = sample.kept * micro_batch, recipe.phase(phase).window
    # The graph of the pixel losses is freed before the backbone's backward pass begins.
    working = max(sample.working * micro_batch, pixel_loss_bytes(recipe, phase, micro_batch))
    # Samples are encoded one at a time before the backbone keeps anything.
    working = max(working, encoding_bytes(recipe, window) + video_bytes(recipe, window) - kept)
    return Memory(
        weights=states.weights,
        gradients=states.gradients,
        optimizer=states.optimizer,
        averaged_weights=4 * count.trained / gpus if train.ema else 0,
        frozen_networks=codec_bytes(recipe) + speech_bytes(recipe) + loss_network_bytes(recipe, phase),
        activations_kept=kept,
        activations_working=working,
        buffers=_buffers(train.zero_stage, count, number_bytes(train.precision)),
        reserve=RESERVE,
    )


def _buffers(stage: int, count: Parameters, width: int) -> float:
    if stage == 0:
        return width * min(BUCKET, count.trained)
    if (
        stage == 3
    ):  # two buckets, because exchange and computation overlap; and the weights that stay gathered
        return width * (2 * BUCKET + min(count.total, LIVE_PARAMETERS))
    return width * BUCKET
