"""What runs on one machine listens to that machine alone."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from perf.mlflow_server import MlflowServer
from xdub.train.records import last_record

pytestmark = pytest.mark.slow
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def listening(root: psutil.Process) -> set[tuple[str, int, str]]:
    """(address, port, process) of everything that a process and its descendants listen at."""
    found = set()
    for process in [root, *root.children(recursive=True)]:
        try:
            connections = process.net_connections("inet")
            found |= {
                (c.laddr.ip, c.laddr.port, process.name())
                for c in connections
                if c.status == psutil.CONN_LISTEN
            }
        except psutil.Error:
            continue
    return found


def test_a_local_training_with_two_workers_listens_on_loopback_alone(tmp_path: Path) -> None:
    from xdub.config import load_recipe
    from xdub.data.shards import ShardWriter
    from xdub.data.testing import make_clip

    with ShardWriter(tmp_path / "data") as writer:
        for seed in range(4):
            writer.add(make_clip(seed, num_frames=25, size=64))
    settings = ["train.workers=2", "train.zero_stage=2", "train.steps=500", "train.global_batch=2"]
    recipe = load_recipe("tiny", [*settings, "train.checkpoint_every=500", "train.sample_every=0"])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    script = textwrap.dedent("""
        import sys
        from xdub.config import load_recipe
        from xdub.train.run import train_phase
        if __name__ == "__main__":
            folder = sys.argv[1]
            train_phase("generator", load_recipe(folder + "/recipe.yaml"), folder + "/data", folder + "/run",
                        progress=lambda now: None)
    """)
    (tmp_path / "driver.py").write_text(script)
    kept = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS",)}
    driver = subprocess.Popen([sys.executable, str(tmp_path / "driver.py"), str(tmp_path)], env=kept)
    record, end = tmp_path / "run/generator/steps.jsonl", time.monotonic() + 240
    try:
        while last_record(record) is None:
            assert driver.poll() is None and time.monotonic() < end
            time.sleep(0.2)
        found = listening(psutil.Process(driver.pid))
    finally:
        driver.kill()
        driver.wait()
    assert any("raylet" in name for *_, name in found)
    assert {where for where in found if where[0] not in LOOPBACK} == set()


def test_the_tracking_server_listens_on_loopback_and_refuses_foreign_hosts(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)
    server.start()
    try:
        server.wait()
        found = {
            (c.laddr.ip, c.laddr.port) for c in psutil.net_connections("inet") if c.laddr.port == server.port
        }
        assert {ip for ip, _ in found} <= LOOPBACK
        request = urllib.request.Request(
            f"{server.uri}/api/2.0/mlflow/experiments/search?max_results=1", headers={"Host": "evil.example"}
        )
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=20)
        assert error.value.code == 403
    finally:
        server.kill()
