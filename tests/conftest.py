"""All tests run as the commands do: no telemetry, no downloads, Ray and MLflow in their local profile."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from xdub.runtime_env import prepare_environment

# Triton decides when it is imported whether it compiles or interprets; without a GPU the kernels' tests interpret them.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Before any test module imports Ray, MLflow or a hub library: they read their environment once.
prepare_environment()
os.environ["HF_HUB_OFFLINE"] = "1"

# A busy machine is no failure: time limits per example say nothing about the code.
settings.register_profile("xdub", deadline=None)
settings.load_profile("xdub")


@pytest.fixture(scope="module", autouse=True)
def the_process_keeps_its_scheduling() -> Iterator[None]:
    """Some libraries (SVT-AV1's encoder, as root) make their process real-time: whatever it starts afterwards,
    threads that wait for one another in a loop among it, then runs a hundred times slower.
    """
    before = os.sched_getscheduler(0)
    yield
    assert os.sched_getscheduler(0) == before
