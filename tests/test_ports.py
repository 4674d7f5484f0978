"""Servers on one machine listen on loopback alone; tests/train/test_run_ray.py checks the same for a training."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from perf.system.mlflow_server import MlflowServer

pytestmark = pytest.mark.slow
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_the_tracking_server_listens_on_loopback_and_refuses_foreign_hosts(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)
    server.start()
    try:
        server.wait()
        listening = {
            (c.laddr.ip, c.laddr.port) for c in psutil.net_connections("inet") if c.laddr.port == server.port
        }
        assert {ip for ip, _ in listening} <= LOOPBACK
        request = urllib.request.Request(
            f"{server.uri}/api/2.0/mlflow/experiments/search?max_results=1", headers={"Host": "evil.example"}
        )
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=20)
        assert error.value.code == 403
    finally:
        server.kill()
