"""Variables that a run sets for itself and for the processes that it starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from requests.utils import should_bypass_proxies

from xdub.runtime_env import prepare_environment

PROXY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the environment after each test, which starts without proxies."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]


def bypassed(host: str) -> bool:
    return should_bypass_proxies(f"http://{host}:8265", no_proxy=None)


@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_this_machine_is_reached_without_a_proxy_and_other_machines_through_it(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, PROXY)
    prepare_environment()
    for host in ("localhost", "127.0.0.1", "127.0.0.2", "[::1]", socket.gethostname()):
        assert bypassed(host), host
    for host in ("198.51.100.1", "cluster.example", "notlocalhost.example"):
        assert not bypassed(host), host


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_entries_of_the_user_stay_whatever_their_spelling(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    monkeypatch.setenv(variable, "corp.example, 198.51.100.1")
    for _ in range(2):
        prepare_environment()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"]
    assert os.environ["no_proxy"].split(",")[:3] == ["corp.example", "198.51.100.1", "localhost"]
    assert os.environ["no_proxy"].count("127.0.0.1,") == 1
    assert bypassed("corp.example") and bypassed("127.0.0.1") and not bypassed("cluster.example")


def test_nothing_is_changed_without_a_proxy_or_where_none_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_environment()
    assert "no_proxy" not in os.environ and "NO_PROXY" not in os.environ
    monkeypatch.setenv("http_proxy", PROXY)
    monkeypatch.setenv("no_proxy", "*")
    prepare_environment()
    assert os.environ["no_proxy"] == "*" and bypassed("cluster.example")


def test_a_temporary_folder_that_cannot_be_used_is_replaced_for_every_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    prepare_environment()
    assert os.environ["TMPDIR"] == tempfile.gettempdir() != str(tmp_path / "none")


COMMAND_THEN_TORCH = """
import sys
from xdub.cli import main

sys.argv = ["xdub", "--version"]
try:
    main()
finally:
    import torch
"""


@pytest.mark.parametrize("threads", ["0", "abc"])
def test_openmp_prints_no_error_about_an_invalid_number_of_threads(threads: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", COMMAND_THEN_TORCH],
        env=os.environ | {"OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0 and run.stderr == ""
