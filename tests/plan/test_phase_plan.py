"""The plan of a phase has the batches of the run that the trainer starts."""

from __future__ import annotations

import pytest

from xdub.config import load_recipe
from xdub.plan.gpus import known_gpu
from xdub.plan.phase_plan import plan_phase
from xdub.train.deepspeed_setup import deepspeed_config


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_plan_has_the_micro_batch_and_accumulation_of_the_engine(workers: int) -> None:
    recipe = load_recipe("tiny", [f"train.workers={workers}", "train.micro_batch=5"])  # divides no part of 16
    settings = plan_phase(recipe, "generator", known_gpu("h100-80gb"), efficiency=0.4).settings
    engine = deepspeed_config(recipe.for_phase("generator"), workers)
    assert settings["micro_batch"] == engine["train_micro_batch_size_per_gpu"]
    assert settings["accumulation"] == engine["gradient_accumulation_steps"]
