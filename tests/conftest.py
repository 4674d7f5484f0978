"""Settings of all tests: as in the commands, no telemetry, no downloads, and local profiles of Ray and MLflow.

Tests run in any order and in several processes (`make test`), so side effects of a test on its process are undone or
made harmless here.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# Each process has one thread, because two processes of tests share two cores, and because figures must not depend on
# the number of processes. torch and NumPy read the variable once, so it is set before they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from xdub.runtime_env import prepare_environment

# Triton reads this variable when it is imported. Without a GPU, the tests of the kernels interpret them.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Ray, MLflow and hub libraries read their environment once, so it is prepared before a test module imports them.
prepare_environment()
# Triton's LLVM crashes the interpreter if it is loaded after Mesa's (llvmpipe), so it is loaded before any rendering.
with contextlib.suppress(ImportError):
    import triton._C.libtriton  # noqa: F401
os.environ["HF_HUB_OFFLINE"] = "1"

# Time limits per example would fail on a busy machine and prove nothing about the code.
settings.register_profile("xdub", deadline=None)
settings.load_profile("xdub")

PROCESSES = 2
"""Processes of a run of all tests. The Ray cluster of a test has several processes of its own and uses a gigabyte."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of processes for `-n auto`: 0 (this process alone) for a single file."""
    single = len(config.args) == 1 and Path(config.args[0].partition("::")[0]).is_file()
    return 0 if single else PROCESSES


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort files by the seconds of their tests, the longest first, so that both processes end together."""
    seconds = Counter[Path]()
    for item in items:
        marker = item.get_closest_marker("slow")
        seconds[item.path] += marker.kwargs.get("seconds", 10) if marker else 0.3
    items.sort(key=lambda item: -seconds[item.path])


_frozen_modules = 0
"""Modules whose objects are exempt from garbage collection."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Exempt the objects of modules from garbage collection, because each full collection would scan them for a second.

    Modules that a fixture has loaded are exempted before the test that uses it.
    """
    global _frozen_modules
    if len(sys.modules) > _frozen_modules + 200:
        gc.freeze()
        _frozen_modules = len(sys.modules)


@pytest.fixture(scope="module", autouse=True)
def restore_linear() -> Iterator[None]:
    """Restore torch's `linear` after each module, because DeepSpeed's ZeRO-3 replaces it for good."""
    before = torch.nn.functional.linear
    yield
    torch.nn.functional.linear = before


@pytest.fixture(scope="module", autouse=True)
def restore_threads() -> Iterator[None]:
    """Restore one thread after each module, because a local training sets as many as there are cores.

    Two threads that share a core with another process wait for each other most of the time.
    """
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def end_process_group() -> Iterator[None]:
    """Destroy the process group of a local training after each module.

    A process that has a group cannot fork the ranks of a test, and every rank that starts afresh imports torch and
    DeepSpeed for itself.
    """
    yield
    if torch.distributed.is_initialized():
        comm = sys.modules.get("deepspeed.comm.comm")
        if comm is not None and comm.cdb is not None:
            comm.destroy_process_group()
            comm.cdb = None
        else:
            torch.distributed.destroy_process_group()


@pytest.fixture(scope="module", autouse=True)
def check_scheduling() -> Iterator[None]:
    """Check that the process keeps its scheduling policy.

    Some libraries (SVT-AV1's encoder, as root) make their process real-time. Threads that it starts afterwards and that
    wait for one another in a loop then run a hundred times slower.
    """
    before = os.sched_getscheduler(0)
    yield
    assert os.sched_getscheduler(0) == before
