"""`train_phase` under Ray Train with two workers and ZeRO-2: a killed run commits the same steps as a whole one.

A start of Ray takes seconds, so one run serves several tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from xdub.errors import UserError
from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder, RunFolder
from xdub.tracking.runs import read_state
from xdub.train.run import RunResult, train_phase
from xdub.train.state.committed_steps import last_record

pytestmark = pytest.mark.slow(seconds=20)

TWO_WORKERS = ("train.workers=2", "train.zero_stage=2", "train.micro_batch=1", "train.checkpoint_every=2")
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def quiet(progress) -> None:
    """Show no progress."""


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    """Start Ray as a machine that offers two of the resource `train`."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        resources={"train": 2},
        include_dashboard=False,
        object_store_memory=400_000_000,
        logging_level="ERROR",
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def whole(small, clips, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Run six steps without interruption; the workers write the Ray resources that they have to files."""
    out = tmp_path_factory.mktemp("whole")

    def resources(model, context):
        import numpy as np
        import ray
        import torch.distributed as dist

        mine = ray.get_runtime_context().get_assigned_resources()
        (out / f"resources{dist.get_rank()}.json").write_text(json.dumps(mine))
        return np.zeros((2, 2, 3), np.uint8)

    recipe = small(*TWO_WORKERS, "train.resource=train", "train.sample_every=3")
    return train_phase("generator", recipe, clips, out, sampler=resources, progress=quiet)


def curve(folder: PhaseFolder) -> list[tuple]:
    return [(r["step"], r["loss"], r["sample_ids"]) for r in read_lines(folder.steps)]


def test_two_workers_train_on_every_sample_once(whole: RunResult) -> None:
    assert (whole.status, whole.step, whole.attempts) == ("finished", 6, 1)
    samples = [sample for *_, ids in curve(whole.folder) for sample in ids]
    # Two epochs of 12 clips.
    assert len(samples) == 24 and all(samples.count(sample) == 2 for sample in samples)
    records = read_lines(whole.folder.journal)
    assert [r["step"] for r in records if r["kind"] == "metrics"] == [2, 4, 6]


def test_workers_reserve_the_resource_of_their_recipe(whole: RunResult) -> None:
    for rank in range(2):
        mine = json.loads((whole.folder.run.path / f"resources{rank}.json").read_text())
        assert (mine["train"], mine["CPU"]) == (1.0, 1.0)


def test_a_users_mistake_in_a_worker_is_reported_once_and_not_retried(small, clips, tmp_path: Path) -> None:
    def mistaken(model, context):
        from xdub.errors import UserError

        raise UserError("this strip cannot be drawn: choose another")

    recipe = small("train.sample_every=1")
    with pytest.raises(UserError, match=r"^this strip cannot be drawn: choose another$"):
        train_phase("generator", recipe, clips, tmp_path, sampler=mistaken, progress=quiet)
    assert {r["attempt"] for r in read_lines(PhaseFolder(tmp_path, "generator").steps)} == {1}


def test_more_workers_than_ray_has_are_refused(small, clips, tmp_path: Path) -> None:
    recipe = small("train.workers=64", "train.global_batch=64", "train.micro_batch=1")
    with pytest.raises(UserError, match="train.workers=64 needs 64 CPUs and one for the data"):
        train_phase("generator", recipe, clips, tmp_path, progress=quiet)


def test_a_resource_that_no_machine_offers_is_refused(small, clips, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="offer the Ray resource 'other', and this Ray has room for 0"):
        train_phase("generator", small("train.resource=other"), clips, tmp_path, progress=quiet)


@dataclass(frozen=True)
class Killed:
    """Observations of a run with a Ray of its own before its driver was killed."""

    out: Path
    runs: dict[str, str]
    """phase -> its run in the tracker."""
    listened: set[tuple[str, int, str]]


@pytest.fixture(scope="module")
def killed(small, clips, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    recipe = small(*TWO_WORKERS, "train.sample_every=1")
    tmp_path = tmp_path_factory.mktemp("driver")
    script = tmp_path / "driver.py"
    script.write_text(
        textwrap.dedent(f"""
        import json, sys, time
        from xdub.config import recipe_from_dict
        from xdub.train.run import train_phase

        def slow(model, context):
            import time, numpy as np
            time.sleep(1.0)
            return np.zeros((2, 2, 3), np.uint8)

        if __name__ == "__main__":
            recipe = recipe_from_dict(json.loads({json.dumps(json.dumps(recipe.to_dict()))}))
            out, data = sys.argv[1:]
            train_phase("generator", recipe, data, out, sampler=slow, resume=True, progress=lambda now: None)
    """)
    )
    out = tmp_path / "run"
    driver = subprocess.Popen([sys.executable, str(script), str(out), str(clips)], start_new_session=True)
    try:
        _wait_for_step(PhaseFolder(out, "generator").steps, 1, 3, driver)
        return Killed(out, read_state(RunFolder(out))["phases"], listening(psutil.Process(driver.pid)))
    finally:
        driver.kill()
        driver.wait(timeout=120)


def listening(root: psutil.Process) -> set[tuple[str, int, str]]:
    """Return (address, port, process) of every socket on which a process and its descendants listen."""
    sockets = set()
    for process in [root, *root.children(recursive=True)]:
        try:
            connections = process.net_connections("inet")
            sockets |= {
                (c.laddr.ip, c.laddr.port, process.name())
                for c in connections
                if c.status == psutil.CONN_LISTEN
            }
        except psutil.Error:
            continue
    return sockets


def test_a_local_training_with_two_workers_listens_on_loopback_alone(killed: Killed) -> None:
    assert any("raylet" in name for *_, name in killed.listened)
    assert {socket for socket in killed.listened if socket[0] not in LOOPBACK} == set()


def test_a_run_whose_driver_and_a_worker_are_killed_commits_the_same_steps(
    small, clips, whole, killed: Killed, tmp_path: Path
) -> None:
    marker = str(tmp_path / "killed")

    def kill_once(model, context):
        import numpy as np
        import torch.distributed as dist

        if dist.get_rank() == 1 and not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.zeros((2, 2, 3), np.uint8)

    recipe = small(*TWO_WORKERS, "train.sample_every=5")
    result = train_phase(
        "generator", recipe, clips, killed.out, resume=True, sampler=kill_once, progress=quiet
    )
    # The killed worker costs an attempt; the next one continues from step 4.
    assert (result.status, result.attempts, os.path.exists(marker)) == ("finished", 2, True)
    assert curve(result.folder) == curve(whole.folder)
    attempts = [r["attempt"] for r in read_lines(result.folder.steps)]
    assert attempts == sorted(attempts) and attempts[:2] == [1, 1] and attempts[4:] == [3, 3]
    assert read_state(RunFolder(killed.out))["phases"] == killed.runs


def _wait_for_step(
    record: Path, attempt: int, step: int, driver: subprocess.Popen, seconds: float = 300.0
) -> None:
    """Wait until this attempt has committed ``step``; an earlier attempt's steps do not end the wait."""
    end = time.monotonic() + seconds

    def reached() -> bool:
        last = last_record(record)
        return last is not None and last["attempt"] == attempt and last["step"] >= step

    while not reached():
        assert driver.poll() is None, "the driver ended by itself"
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)
