"""FLOPs of one optimizer step by part: the model's own, those repeated to save memory, and the frozen networks'."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from xdub.config import Recipe, inpaints
from xdub.plan.codec_cost import encode_flops
from xdub.plan.gpus import Gpu
from xdub.plan.loss_networks import loss_network_flops, pixel_loss_flops
from xdub.plan.network import OUTSIDE, Network, Products, count_network
from xdub.plan.speech_cost import speech_flops

RESCORED = "attention scores again, backwards"
"""Row of the scores q k^T that a fused attention computes again in its backward pass."""
RECOMPUTED = "recomputed by checkpointing"
"""Row of the products that activation checkpointing repeats."""
PIXEL_LOSSES = "pixel losses"
"""Row of decoding for losses, forwards and backwards."""
LOSS_NETWORKS = "loss networks"
"""Row of the frozen networks of the losses."""
ENCODED = "codec encode"
"""Row of encoding the videos of a batch."""
SPEECH = "audio encoder"
"""Row of the audio encoder."""
FILTERS = "pair filters"
"""Row of the networks that judge pairs."""
FP32_ROWS = frozenset((LOSS_NETWORKS, SPEECH, FILTERS))
"""Rows that are computed in fp32 whatever the recipe's precision, see `xdub.precision`."""
ROWS = (
    OUTSIDE,
    "projections",
    RECOMPUTED,
    "2D attention",
    RESCORED,
    "3D attention",
    "text cross-attention",
    "audio cross-attention",
    "FFN",
    ENCODED,
    SPEECH,
    PIXEL_LOSSES,
    LOSS_NETWORKS,
)
"""Order of the rows in a report; other parts follow."""


def sample_flops(network: Network) -> float:
    """Return the model FLOPs of one sample forwards and backwards through the backbone, nothing counted twice."""
    return float(sum(products.forward + products.backward for products in network.products))


def train_step_flops(recipe: Recipe, phase: str, network: Network | None = None) -> float:
    """Return the model FLOPs of one optimizer step for one global batch, forwards and backwards.

    This is the numerator of model FLOPs utilisation (MFU), so it excludes what activation checkpointing repeats, the
    scores that a fused attention computes again in its backward pass, the codec and the loss networks.
    """
    return recipe.for_phase(phase).global_batch * sample_flops(network or count_network(recipe, phase))


def step_parts(recipe: Recipe, phase: str, network: Network | None = None) -> dict[str, float]:
    """Return all FLOPs that the GPUs compute in one optimizer step, by part in the order of ROWS.

    GPUs that share samples encode their videos in turn. Each of them computes speech and pixel losses for itself. A
    phase that reads cached latents encodes nothing.
    """
    train, parts = recipe.for_phase(phase), defaultdict[str, float](float)
    for products in (network or count_network(recipe, phase)).products:
        parts[products.part] += products.forward + products.backward
        parts[RESCORED] += products.rescored
        if recomputed(products, train.activation_checkpointing):
            parts[RECOMPUTED] += products.forward
    repeats = train.sequence_parallel
    parts[PIXEL_LOSSES] = repeats * pixel_loss_flops(recipe, phase)
    parts[LOSS_NETWORKS] = repeats * loss_network_flops(recipe, phase)
    step = {name: train.global_batch * flops for name, flops in parts.items()}
    if train.latents == "live":
        step |= encoder_parts(recipe, phase)
    names = dict.fromkeys((*ROWS, *step))
    return {name: step[name] for name in names if step.get(name)}


def encoder_parts(recipe: Recipe, phase: str) -> dict[str, float]:
    """Return the FLOPs of codec and audio encoder in one step of a phase that encodes its samples."""
    train, window = recipe.for_phase(phase), recipe.phase(phase).window
    repeats = train.sequence_parallel
    # A micro batch has a target, and its twin, of each sample; GPUs without a video wait.
    videos = 2 * train.micro_batch_of(train.workers)
    encoded = repeats * -(-videos // repeats) / videos * encode_sample_flops(recipe, phase)
    parts = {ENCODED: encoded, SPEECH: repeats * speech_flops(recipe, window)}
    return {name: train.global_batch * flops for name, flops in parts.items()}


def compute_seconds(parts: Mapping[str, float], precision: str, gpu: Gpu) -> float:
    """Return the seconds that parts take on one GPU at its peak for the precision of each part."""
    return sum(flops / gpu.peak("fp32" if name in FP32_ROWS else precision) for name, flops in parts.items())


def recomputed(products: Products, policy: str) -> bool:
    """Return whether a checkpoint policy repeats the forward pass of these products."""
    if policy == "none" or not products.in_block:
        return False
    return policy == "full" or not products.self_attention


def encode_sample_flops(recipe: Recipe, phase: str) -> float:
    """Return the codec's FLOPs for one sample: its window, and the masked or altered twin (`xdub.data.latents`)."""
    window = encode_flops(recipe, recipe.phase(phase).window)
    reference = encode_flops(recipe, 1) if inpaints(phase) else 0.0
    return 2 * window + reference
