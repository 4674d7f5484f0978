"""Memory of one GPU by part."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from xdub.config import Recipe, TrainConfig
from xdub.model.offload import SLOTS
from xdub.plan.codec_cost import codec_bytes, decoding_bytes, encoding_bytes, video_bytes
from xdub.plan.gpus import GIB
from xdub.plan.loss_networks import loss_network_bytes, pixel_loss_bytes
from xdub.plan.network import Parameters
from xdub.plan.rehearsal import Activations
from xdub.plan.speech_cost import speech_bytes
from xdub.precision import MOMENT_BLOCK, number_bytes

BUCKET = 500_000_000
"""Largest number of elements in the buffer in which DeepSpeed collects gradients to exchange: its default. Below
stage 3 the buffer never has more elements than the phase trains."""
LIVE_PARAMETERS = 1_000_000_000
"""Number of weights that ZeRO-3 may keep gathered: its default."""
RESERVE = 2 * GIB
"""ASSUMPTION: CUDA context, NCCL, cuBLAS workspaces, fragmentation."""


@dataclass(frozen=True, kw_only=True)
class ModelStates:
    """Bytes on one GPU of weights, gradients and optimizer."""

    weights: float
    """Weights in training precision or compact storage, frozen ones included."""
    gathered: float
    """Weights that ZeRO-3 gathers for the layer that runs, and their gradients."""
    gradients: float
    """Gradients in training precision, and the fp32 copy of this rank's part: the sum of all micro batches from stage 2
    on, else a copy that the optimizer step computes. ZeRO-3 holds only one of the two at a time, group by group."""
    optimizer: float
    """fp32 master weights (when training in bf16) and AdamW's two moments, on the GPU."""

    @property
    def total(self) -> float:
        """Sum of all fields."""
        return self.weights + self.gathered + self.gradients + self.optimizer


def model_states(count: Parameters, train: TrainConfig, gpus: int) -> ModelStates:
    """Return the bytes that ZeRO leaves on one GPU: stage 1 shards the optimizer, 2 also gradients, 3 also weights.

    Weights in compact storage are buffers, which no stage shards. Offload of the optimizer moves its states to CPU
    memory; the fp32 sum of bf16 gradients stays on the GPU at stage 2, and moves with the states at stage 3. Offload of
    blocks leaves `SLOTS` of them on the GPU.
    """
    stage, precision, width = train.zero_stage, train.precision, number_bytes(train.precision)
    mine = count.trained / gpus  # this rank's part of the trained parameters
    gradients = width * (mine if stage == 2 else count.trained if stage < 2 else 0)
    if precision == "bf16" or stage:
        gradients += 4 * (mine if stage else count.trained)
    if train.offloads("optimizer"):
        summed = 4 * mine if stage == 2 and precision == "bf16" else 0
        gradients = width * count.trained if stage < 2 else summed
    return ModelStates(
        weights=_weight_bytes(count, train, gpus),
        gathered=2 * width * count.largest_layer if stage == 3 else 0,
        gradients=gradients,
        optimizer=0 if train.offloads("optimizer") else optimizer_bytes(count, train, gpus),
    )


def optimizer_bytes(count: Parameters, train: TrainConfig, gpus: int) -> float:
    """Return the bytes of one rank's fp32 masters and moments, on the GPU or in CPU memory."""
    # fp32 without ZeRO trains its weights in place.
    master = 4 if train.precision == "bf16" or train.zero_stage else 0
    moments = 2 * (1 + 4 / MOMENT_BLOCK) if train.optimizer == "adamw8bit" else 8
    return (master + moments) * (count.trained / gpus if train.zero_stage else count.trained)


def _weight_bytes(count: Parameters, train: TrainConfig, gpus: int) -> float:
    """Return the bytes of all weights that one GPU holds between two layers."""
    width, stored = number_bytes(train.precision), count.frozen_blocks
    weights = width * (count.total - stored.stored)
    if train.zero_stage == 3:
        weights /= gpus
    if train.offloads("blocks"):
        slots = min(SLOTS * count.largest_block.bytes_in(train.precision), stored.bytes_in(train.precision))
        return weights - width * stored.numbers + slots
    return weights + stored.stored_bytes


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
    """Further, temporary bytes: a block computed again and gradients between layers, decoding for pixel losses,
    encoding, or a strip."""
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
    states = model_states(count, train, gpus)
    micro_batch = train.micro_batch_of(gpus)
    kept, window = sample.kept * micro_batch, recipe.phase(phase).window
    # The graph of the pixel losses is freed before the backbone's backward pass begins.
    working = max(sample.working * micro_batch, pixel_loss_bytes(recipe, phase, micro_batch))
    # Samples are encoded one at a time before the backbone keeps anything.
    working = max(working, encoding_bytes(recipe, window) + video_bytes(recipe, window) - kept)
    working = max(working, strip_bytes(recipe, phase, count) - kept)
    return Memory(
        weights=states.weights + states.gathered,
        gradients=states.gradients,
        optimizer=states.optimizer,
        # The average lies where the masters are.
        averaged_weights=4 * count.trained / gpus if train.ema and not train.offloads("optimizer") else 0,
        frozen_networks=codec_bytes(recipe) + speech_bytes(recipe) + loss_network_bytes(recipe, phase),
        activations_kept=kept,
        activations_working=working,
        buffers=_buffers(train.zero_stage, count, number_bytes(train.precision)),
        reserve=RESERVE,
    )


def strip_bytes(recipe: Recipe, phase: str, count: Parameters) -> float:
    """Return the peak bytes of drawing a strip, when no activations are kept: the last of three videos is decoded.

    The weights are exchanged with their average before, one parameter at a time.
    """
    train, window = recipe.for_phase(phase), recipe.phase(phase).window
    if train.sample_every == 0:
        return 0.0
    exchanged = 4.0 * count.largest_layer if train.ema and not train.offloads("optimizer") else 0.0
    decoded = decoding_bytes(recipe, recipe.codec.geometry.latent_frames(window))
    return max(exchanged, decoded + 2 * video_bytes(recipe, window))


def _buffers(stage: int, count: Parameters, width: int) -> float:
    if stage == 3:
        # Two buckets, because exchange and computation overlap; and the weights that stay gathered.
        return width * (2 * BUCKET + min(count.total - count.frozen_blocks.stored, LIVE_PARAMETERS))
    return width * min(BUCKET, count.trained)
