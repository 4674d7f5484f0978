"""Warning for a large network that starts from random weights at a learning rate for fine-tuning."""

from __future__ import annotations

from xdub.config import Recipe, base_path, phase_facts
from xdub.plan.network import count_parameters

LARGE = 300_000_000
"""Trained parameters from which a start from random weights costs so much that a warning is due."""
FINE_TUNING_RATE = 3e-5
"""Largest learning rate that counts as one of fine-tuning.

Trained video models are fine-tuned at about 1e-5, the paper's rate (B.6), and diffusion transformers of 30 million to
several billion parameters are trained from random weights at about 1e-4. The value is the geometric mean of both rates.
AdamW moves a weight by at most about the rate in a step. At 1e-5, an initial weight of size 1 / sqrt(1536) = 0.026
therefore needs at least 2,600 steps in one direction to change by its own size, and far more where gradients disagree.
"""
FROM_SCRATCH_RATE = 1e-4
"""Learning rate that the warning proposes for random weights."""


def random_start_warning(recipe: Recipe, phase: str, *, init_from: object | None = None) -> str | None:
    """Return one sentence about a phase that should not start from random weights; None if there is nothing to say.

    ``init_from``: weights that the phase starts from, if not the recipe's own `train.init_from`.
    """
    if phase_facts(phase).trains != "backbone":
        return None
    train = recipe.for_phase(phase)
    started = init_from or train.init_from or base_path(recipe)
    random = started is None and phase_facts(phase).expert is None
    if not random or train.lr > FINE_TUNING_RATE:
        return None
    count = count_parameters(recipe, phase).trained
    if count < LARGE:
        return None
    base = ", open ones with --set model.base=DIR" if recipe.model.kind == "wan" else ""
    return (
        f"{phase}: {count / 1e9:.2f} billion weights start at random with lr={train.lr:g}, which is a rate for "
        f"fine-tuning: start from trained weights with --init-from (xdub bootstrap: --init){base}, or raise the rate, "
        f"e.g. --set phases.{phase}.lr={FROM_SCRATCH_RATE:g}"
    )
