"""A Ray cluster whose machines are local processes: Ray's own fake provider with its real autoscaler."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from perf.system.processes import free_port, in_sessions
from xdub.ray_session import ensure_token
from xdub.runtime_env import LOOPBACK, prepare_environment

HEAD = "f" * 51 + "00000"
"""Node id of the head."""
STARTS = 3
"""Attempts to start the cluster on a busy machine."""


class FakeCloud:
    """Cluster with an idle head and up to ``most`` machines with one CPU and one ``pairgen`` each, at first none.

    Use as a context manager.
    """

    def __init__(self, folder: Path, *, most: int = 3, idle_seconds: float = 6.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._most, self._idle_minutes = folder, most, idle_seconds / 60
        self.address = ""
        self._head: subprocess.Popen | None = None
        self._gcs: Any = None

    def __enter__(self) -> FakeCloud:
        prepare_environment()
        ensure_token()
        for attempt in range(1, STARTS + 1):
            self._start()
            if self._is_up():
                return self
            self.__exit__()
            log = (self._folder / "head.log").read_text()
            # A busy machine may need another attempt.
            if attempt == STARTS or "timed out during startup" not in log:
                raise RuntimeError(f"the cluster does not start: {log[-2000:]}")
        raise AssertionError

    def _start(self) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        config = self._folder / "cluster.json"
        config.write_text(json.dumps(self._config()))
        ray = str(Path(sys.executable).with_name("ray"))
        command = [
            ray,
            "start",
            "--head",
            "--block",
            f"--port={port}",
            "--num-cpus=0",
            "--include-dashboard=false",
        ]
        command += ["--object-store-memory=100000000", f"--autoscaling-config={config}"]
        variables = {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
            "RAY_CLOUD_INSTANCE_ID": HEAD,
            # Several machines need loopback addresses.
            LOOPBACK: "1",
        }
        with (self._folder / "head.log").open("wb") as log:
            self._head = subprocess.Popen(
                command, env=os.environ | variables, stdout=log, stderr=log, start_new_session=True
            )

    def __exit__(self, *_: object) -> None:
        for process in self._session():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self._head is not None:
            self._head.wait()

    def machines(self) -> set[str]:
        """Return Ray's ids of the live machines without the head."""
        # `ray status` uses this client, too. A driver would be listed as a job. Ray's stub file lacks the class.
        from ray._raylet import GcsClient  # ty: ignore[missing-module-member]

        if self._gcs is None:
            self._gcs = GcsClient(address=self.address)
        nodes = self._gcs.get_all_node_info()
        return {node_id.hex() for node_id, node in nodes.items() if node.state == node.ALIVE} - {HEAD}

    def processes(self, title: str) -> list[psutil.Process]:
        """Return the processes whose command begins with ``title``, oldest first."""
        return _without_forks([p for p in self._session() if (_command(p) or [""])[0].startswith(title)])

    def crash(self) -> float:
        """Kill one machine, its raylet and all its processes; return the time."""
        raylet = [p for p in self._raylets() if any("pairgen,1" in text for text in _command(p))][-1]
        others = raylet.children(recursive=True)
        crashed_at = time.monotonic()
        for process in [raylet, *others]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return crashed_at

    def _raylets(self) -> list[psutil.Process]:
        return _without_forks(
            [p for p in self._session() if (_command(p) or [""])[0].endswith("raylet/raylet")]
        )

    def _session(self) -> list[psutil.Process]:
        """Return all processes of the cluster, which share the head's session."""
        return in_sessions({self._head.pid} if self._head is not None else ())

    def _is_up(self, seconds: float = 180.0) -> bool:
        """Wait for Ray's message that it has started: its processes exist long before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._head is not None and self._head.poll() is None:
            if "Ray runtime started" in (self._folder / "head.log").read_text():
                return True
            time.sleep(0.2)
        return False

    def _config(self) -> dict[str, Any]:
        empty_lists = (
            "initialization_commands",
            "setup_commands",
            "head_setup_commands",
            "worker_setup_commands",
        )
        empty_lists += (
            "head_start_ray_commands",
            "worker_start_ray_commands",
            "rsync_exclude",
            "rsync_filter",
        )
        machine = {"CPU": 1, "pairgen": 1, "object_store_memory": 80_000_000}
        return {
            "cluster_name": "fake",
            "max_workers": self._most,
            "upscaling_speed": 10.0,
            "idle_timeout_minutes": self._idle_minutes,
            "provider": {
                "type": "fake_multinode",
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
                "launch_multiple": True,
                "head_node_id": HEAD,
                "gcs_address": self.address,
            },
            "auth": {},
            "docker": {},
            "file_mounts": {},
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "pairgen": {
                    "resources": machine,
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": self._most,
                },
            },
        } | {name: [] for name in empty_lists}


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _without_forks(candidates: list[psutil.Process]) -> list[psutil.Process]:
    """Drop processes that another candidate has just forked: they have its name until they execute another program."""
    return [p for p in candidates if _parent(p) not in {other.pid for other in candidates}]


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.Error:
        return 0


def terminate(process: subprocess.Popen) -> None:
    """Kill the process group with -9 and wait for the process."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
