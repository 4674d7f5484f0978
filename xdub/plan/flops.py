"""FLOPs of one optimizer step: what the model needs, and what is done again to save memory."""

from __future__ import annotations

from xdub.config import Recipe
from xdub.plan.products import products


def sample_flops(recipe: Recipe, phase: str) -> float:
    """Model FLOPs of one sample forwards and backwards through the backbone, nothing done twice."""
    return float(sum(product.forward + product.backward for product in products(recipe, phase)))


def train_step_flops(recipe: Recipe, phase: str) -> float:
    """Model FLOPs of one optimizer step for one global batch, forwards and backwards, without recomputation.

    The numerator of model FLOPs utilisation (MFU): neither activation checkpointing, nor the scores that a fused
    attention computes again in its backward pass, nor codec and loss networks are in it.
    """
    return recipe.for_phase(phase).global_batch * sample_flops(recipe, phase)
