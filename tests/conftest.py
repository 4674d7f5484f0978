"""All tests run as the commands do: no telemetry, no downloads, Ray and MLflow in their local profile.

They may run in any order and in several processes (`make test`): what a test leaves behind in its process is undone or
made harmless here.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# One thread each: two processes of tests share two cores, and figures are the same however the tests are run. Before
# torch and NumPy are imported, which look once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from xdub.runtime_env import prepare_environment

# Triton decides when it is imported whether it compiles or interprets; without a GPU the kernels' tests interpret them.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Before any test module imports Ray, MLflow or a hub library: they read their environment once.
prepare_environment()
# Before anything is rendered: loaded after Mesa's LLVM (llvmpipe), Triton's own ends the interpreter.
with contextlib.suppress(ImportError):
    import triton._C.libtriton  # noqa: F401
os.environ["HF_HUB_OFFLINE"] = "1"

# A busy machine is no failure: time limits per example say nothing about the code.
settings.register_profile("xdub", deadline=None)
settings.load_profile("xdub")

PROCESSES = 2
"""For a whole run. A Ray cluster of a test has several processes itself and takes a gigabyte."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Of `-n auto`: none but this one for a single file, which the tests of one file would not leave anyway."""
    single = len(config.args) == 1 and Path(config.args[0].partition("::")[0]).is_file()
    return 0 if single else PROCESSES


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first, then those with the most tests, so that both processes end together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (-slow[item.path], -tests[item.path]))


@pytest.fixture(scope="module", autouse=True)
def layers_stay_torchs_own() -> Iterator[None]:
    """DeepSpeed's ZeRO-3 puts a function of its own in this place and leaves it there."""
    before = torch.nn.functional.linear
    yield
    torch.nn.functional.linear = before


@pytest.fixture(scope="module", autouse=True)
def the_process_keeps_its_scheduling() -> Iterator[None]:
    """Some libraries (SVT-AV1's encoder, as root) make their process real-time: whatever it starts afterwards,
    threads that wait for one another in a loop among it, then runs a hundred times slower.
    """
    before = os.sched_getscheduler(0)
    yield
    assert os.sched_getscheduler(0) == before
