"""FLOPs of one optimizer step by part: what the model needs, what is done again to save memory, what surrounds it."""

from __future__ import annotations

from collections import defaultdict

from xdub.config import Recipe, inpaints
from xdub.plan.codec_cost import encode_flops
from xdub.plan.loss_networks import pixel_loss_flops
from xdub.plan.products import Attention, Product, products

RESCORED = "attention scores again, backwards"
RECOMPUTED = "recomputed by checkpointing"
PIXEL_LOSSES = "pixel losses"
ENCODED = "codec encode"
REPEATED = (RESCORED, RECOMPUTED)


def sample_flops(recipe: Recipe, phase: str) -> float:
    """Model FLOPs of one sample forwards and backwards through the backbone, nothing done twice."""
    return float(sum(product.forward + product.backward for product in products(recipe, phase)))


def train_step_flops(recipe: Recipe, phase: str) -> float:
    """Model FLOPs of one optimizer step for one global batch, forwards and backwards, without recomputation.

    The numerator of model FLOPs utilisation (MFU): neither activation checkpointing, nor the scores that a fused
    attention computes again in its backward pass, nor codec and loss networks are in it.
    """
    return recipe.for_phase(phase).global_batch * sample_flops(recipe, phase)


def step_parts(recipe: Recipe, phase: str) -> dict[str, float]:
    """FLOPs of one optimizer step on the GPUs by part, all that they really compute."""
    train, parts = recipe.for_phase(phase), defaultdict[str, float](float)
    for product in products(recipe, phase):
        parts[product.part] += product.forward + product.backward
        if isinstance(product, Attention):
            parts[RESCORED] += product.rescored
        if recomputed(product, train.activation_checkpointing):
            parts[RECOMPUTED] += product.forward
    parts[PIXEL_LOSSES] = pixel_loss_flops(recipe, phase)
    parts[ENCODED] = encode_sample_flops(recipe, phase)
    return {part: train.global_batch * flops for part, flops in parts.items() if flops}


def recomputed(product: Product, policy: str) -> bool:
    """A checkpoint policy does this product twice forwards."""
    if policy == "none" or not product.in_block:
        return False
    return policy == "full" or product.part not in ("2D attention", "3D attention")


def encode_sample_flops(recipe: Recipe, phase: str) -> float:
    """FLOPs of the codec for one sample: the window, and its masked or its altered twin (`xdub.data.latents`)."""
    window = encode_flops(recipe, recipe.phase(phase).window)
    reference = encode_flops(recipe, 1) if inpaints(phase) else 0.0
    return 2 * window + reference
