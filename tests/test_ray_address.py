"""RAY_ADDRESS names something that is no usable cluster: one line that names the variable, within a minute."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from xdub import ray_address
from xdub.config import load_recipe
from xdub.errors import UserError
from xdub.pairs.units import Unit
from xdub.pairs.worker import PairWorker, failed_unit
from xdub.pool import WorkerPool, Workers
from xdub.ray_address import check_address, names_a_cluster
from xdub.runtime_env import on_a_cluster
from xdub.train.supervise.cluster import check_resources


@pytest.fixture
def closed_port() -> str:
    """Return an address at which nothing listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ray://127.0.0.1:10001", "Ray Client"),
        ("http://127.0.0.1:8265", "dashboard"),
        ("head", "expected HOST:PORT"),
        ("head:port", "expected HOST:PORT"),
        ("127.0.0.1:0", "expected HOST:PORT"),
        ("127.0.0.1:99999", "expected HOST:PORT"),
        ("nothing.invalid:6379", "nothing answers"),
        (f"{'a' * 64}.b:6379", "nothing answers"),
    ],
)
def test_an_address_of_another_kind_is_an_error_that_names_the_variable(
    address: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=rf"^RAY_ADDRESS={address}: .*{reason}.*unset RAY_ADDRESS"):
        check_address()


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("ray.exceptions.ActorDiedError: The actor died", "RAY_AUTH_MODE here to the mode"),
        ("AuthenticationError: refused", "refuses this machine's token"),
        ("first\nValueError: last", "ValueError: last"),
    ],
)
def test_a_cluster_that_fails_the_trial_is_an_error_with_its_reason(
    output: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(ray_address, "TRIAL", f"import sys; sys.exit({output!r})")
    with pytest.raises(UserError, match=rf"^RAY_ADDRESS=auto: .*{reason}[^\n]*unset RAY_ADDRESS"):
        check_address()


def test_local_and_empty_addresses_mean_a_ray_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    for address, expected in {
        "": False,
        " ": False,
        "local": False,
        "auto": True,
        "10.0.0.1:6379": True,
    }.items():
        assert names_a_cluster(address) == expected
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert on_a_cluster() == expected


def test_a_command_with_the_address_of_no_ray_ends_with_one_line(closed_port: str, tmp_path: Path) -> None:
    videos = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for number, video in enumerate(videos):
        video.write_bytes(b"not a video %d" % number)
    command = [sys.executable, "-c", "from xdub.cli import main; main()", "prepare", *map(str, videos)]
    run = subprocess.run(
        [*command, "--workers", "2", "--out", str(tmp_path / "out")],
        env=os.environ | {"RAY_ADDRESS": closed_port},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2, run.stderr[-2000:]
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"xdub: error: RAY_ADDRESS={closed_port}: nothing answers"), line


def test_training_and_pairs_check_the_address_before_they_start(
    closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", closed_port)
    with pytest.raises(UserError, match="^RAY_ADDRESS="):
        check_resources(load_recipe("tiny").for_phase("generator"))
    pool = WorkerPool(PairWorker, {}, Workers(), name="pairs", failed=failed_unit)
    with pytest.raises(UserError, match="^RAY_ADDRESS="):
        next(pool.outcomes([Unit(0, ())]))
