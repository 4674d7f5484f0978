"""The token and the environment of a Ray of our own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from xdub.ray_session import ensure_token
print("ready", flush=True)
sys.stdin.readline()
ensure_token()
"""


def start(home: Path, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={"HOME": str(home), **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_start_at_once_share_one_token_which_only_its_user_can_read(tmp_path: Path) -> None:
    started = [start(tmp_path) for _ in range(4)]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait(60) for process in started] == [0] * 4
    (token,) = (tmp_path / ".ray").iterdir()
    assert token.name == "auth_token" and len(token.read_text()) == 64
    assert token.stat().st_mode & 0o077 == 0


def test_a_token_that_is_there_is_kept_and_one_that_is_named_elsewhere_suffices(tmp_path: Path) -> None:
    (tmp_path / "given" / ".ray").mkdir(parents=True)
    token = tmp_path / "given" / ".ray" / "auth_token"
    token.write_text("of the cluster")
    assert start(tmp_path / "given").communicate("\n") and token.read_text() == "of the cluster"
    (tmp_path / "named").mkdir()
    start(tmp_path / "named", RAY_AUTH_TOKEN_PATH=str(token)).communicate("\n")
    assert not list((tmp_path / "named").iterdir())


ADDRESSES = """
import os
import ray
from xdub.ray_session import ensure_ray

ensure_ray()
address = ray.remote(lambda: os.environ.get("RAY_API_SERVER_ADDRESS"))
print(os.environ.get("RAY_API_SERVER_ADDRESS"), ray.get(address.remote()))
"""


def test_workers_of_our_own_ray_search_for_no_dashboard_and_their_starter_keeps_its_environment() -> None:
    run = subprocess.run([sys.executable, "-c", ADDRESSES], capture_output=True, text=True, timeout=120)
    assert run.stdout.split() == ["None", "http://127.0.0.1:9"], run.stderr[-2000:]
