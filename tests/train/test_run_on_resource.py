"""A run that names a Ray resource (`train.resource`) gets its workers on a machine that offers it."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdub.runtime_env import prepare_environment
from xdub.train.run import train_phase

pytestmark = pytest.mark.slow


def test_workers_take_the_resource_that_their_run_names(small, clips, tmp_path: Path) -> None:
    prepare_environment()
    import ray

    ray.init(
        address="local", num_cpus=4, resources={"train": 2}, include_dashboard=False, logging_level="ERROR"
    )
    try:
        recipe = small("train.steps=2", "train.workers=2", "train.micro_batch=1", "train.resource=train")
        result = train_phase("generator", recipe, clips, tmp_path, progress=lambda progress: None)
        assert (result.status, result.step) == ("finished", 2)
    finally:
        ray.shutdown()
