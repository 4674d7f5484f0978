"""The token and the environment of a Ray of our own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xdub.ray_session import ensure_token

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


STARTED = """
import os, signal
import ray
from xdub.ray_session import ensure_ray

signal.signal(signal.SIGTERM, lambda *_: print("handled"))
ensure_ray()
address = ray.remote(lambda: os.environ.get("RAY_API_SERVER_ADDRESS"))
print(os.environ.get("RAY_API_SERVER_ADDRESS"), ray.get(address.remote()))
signal.raise_signal(signal.SIGTERM)
print(ray.get_runtime_context().get_session_name())
"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess:
    """Start a Ray where TMPDIR has 93 bytes or more and a proxy is set that nothing answers."""
    folder = tmp_path_factory.mktemp("t" * 93)
    variables = {"TMPDIR": str(folder), "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, "-c", STARTED],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_workers_of_our_own_ray_search_for_no_dashboard_and_their_starter_keeps_its_environment(
    started: subprocess.CompletedProcess,
) -> None:
    assert started.stdout.split()[:2] == ["None", "http://127.0.0.1:9"], started.stderr[-2000:]


def test_a_ray_starts_where_tmpdir_is_too_long_for_its_sockets(started: subprocess.CompletedProcess) -> None:
    session = Path(f"/tmp/xdub-{os.getuid()}/ray") / started.stdout.split()[-1]
    assert (session / "sockets").is_dir(), started.stderr[-2000:]


def test_the_callers_handler_of_sigterm_outlives_the_start_of_ray(
    started: subprocess.CompletedProcess,
) -> None:
    assert started.stdout.split()[2] == "handled", started.stderr[-2000:]
    assert "SIGTERM" not in started.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can create a file of another user")
def test_a_token_that_another_user_wrote_is_not_used(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    token = tmp_path / ".ray" / "auth_token"
    token.write_text("0" * 64)
    os.chown(token, 54321, 54321)
    script = "import os; from xdub.ray_session import ensure_token; ensure_token(); print(os.environ['RAY_AUTH_TOKEN'])"
    run = subprocess.run(
        [sys.executable, "-c", script], env={"HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert len(run.stdout.strip()) == 64 != run.stdout.count("0"), run.stderr


def test_a_file_system_without_links_and_an_empty_token_have_a_token_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for home in (tmp_path / "no links", tmp_path / "empty"):
        (home / ".ray").mkdir(parents=True)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("RAY_AUTH_TOKEN", "")
        monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
        if home.name == "empty":
            (home / ".ray" / "auth_token").touch()
        ensure_token()
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
        assert [path.name for path in (home / ".ray").iterdir()] == ["auth_token"] * (home.name == "empty")
