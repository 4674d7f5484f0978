"""FLOPs of one optimizer step by part: the model's own, those repeated to save memory, and the frozen networks'."""

from __future__ import annotations

from collections import defaultdict

from xdub.config import Recipe, inpaints
from xdub.plan.codec_cost import encode_flops
from xdub.plan.loss_networks import pixel_loss_flops
from xdub.plan.network import OUTSIDE, SELF_ATTENTION, Network, Products, count_network

RESCORED = "attention scores again, backwards"
"""Row of the scores q k^T that a fused attention computes again in its backward pass."""
RECOMPUTED = "recomputed by checkpointing"
"""Row of the products that activation checkpointing repeats."""
PIXEL_LOSSES = "pixel losses"
"""Row of decoding and of the networks of the losses."""
ENCODED = "codec encode"
"""Row of encoding the videos of a batch."""
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
    PIXEL_LOSSES,
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
    """Return all FLOPs that the GPUs compute in one optimizer step, by part in the order of ROWS."""
    train, parts = recipe.for_phase(phase), defaultdict[str, float](float)
    for products in (network or count_network(recipe, phase)).products:
        parts[products.part] += products.forward + products.backward
        parts[RESCORED] += products.rescored
        if recomputed(products, train.activation_checkpointing):
            parts[RECOMPUTED] += products.forward
    parts[PIXEL_LOSSES] = pixel_loss_flops(recipe, phase)
    parts[ENCODED] = encode_sample_flops(recipe, phase)
    names = dict.fromkeys((*ROWS, *parts))
    return {name: train.global_batch * parts[name] for name in names if parts[name]}


def recomputed(products: Products, policy: str) -> bool:
    """Return whether a checkpoint policy repeats the forward pass of these products."""
    if policy == "none" or not products.in_block:
        return False
    return policy == "full" or products.part not in SELF_ATTENTION.values()


def encode_sample_flops(recipe: Recipe, phase: str) -> float:
    """Return the codec's FLOPs for one sample: its window, and the masked or altered twin (`xdub.data.latents`)."""
    window = encode_flops(recipe, recipe.phase(phase).window)
    reference = encode_flops(recipe, 1) if inpaints(phase) else 0.0
    return 2 * window + reference
