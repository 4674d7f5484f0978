"""A Ray cluster for jobs whose machines are local processes, with dashboard and token."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

from perf.system.processes import free_port, in_sessions
from xdub.ray_session import ensure_token
from xdub.runtime_env import LOOPBACK, prepare_environment

RAY = str(Path(sys.executable).with_name("ray"))
"""Path of Ray's command."""


class LocalCluster:
    """Cluster of a head with ``cpus`` and ``more`` raylets with as many, on loopback, protected by its own token.

    Use as a context manager. ``environment`` has the variables that a client needs.
    """

    def __init__(self, folder: Path, *, cpus: int = 2, more: int = 1) -> None:
        prepare_environment()
        ensure_token()
        folder.mkdir(parents=True, exist_ok=True)
        self._log, self._cpus, self._more = folder / "cluster.log", cpus, more
        self.port, self._dashboard = free_port(), free_port()
        self.address = f"http://127.0.0.1:{self._dashboard}"
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._processes: list[subprocess.Popen] = []

    def __enter__(self) -> LocalCluster:
        # The path is short because a socket's path has at most 107 characters.
        self._scratch = Path(tempfile.mkdtemp(prefix="ray-"))
        common = ["--block", f"--num-cpus={self._cpus}", "--object-store-memory=200000000"]
        head = ["--head", "--node-ip-address=127.0.0.1", f"--port={self.port}", "--dashboard-host=127.0.0.1"]
        self._start([*head, f"--dashboard-port={self._dashboard}", f"--temp-dir={self._scratch}/m0", *common])
        self._wait()
        # Machines start one after the other, because two at once time out on a small machine.
        for number in range(1, self._more + 1):
            # Every machine has its own folder, because two cannot unpack the same code into one.
            own = f"--temp-dir={self._scratch}/m{number}"
            self._start([f"--address=127.0.0.1:{self.port}", "--node-ip-address=127.0.0.1", own, *common])
            self._wait(machines=number + 1)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        for started in self._processes:
            started.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the cluster with its jobs, which share the started sessions."""
        return in_sessions({started.pid for started in self._processes})

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Return (status, body) of the dashboard's answer."""
        request = urllib.request.Request(self.address + path, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    @property
    def headers(self) -> dict[str, str]:
        """Headers with the cluster's token."""
        return {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}

    def _start(self, options: list[str]) -> None:
        # On its usual port the agent that accepts jobs would not start beside another Ray.
        options = [*options, f"--dashboard-agent-listen-port={free_port()}"]
        # A job's `python` is this interpreter.
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
        variables = {
            "PATH": path,
            LOOPBACK: "1",  # several machines need loopback addresses
            # Without it Ray Train looks for a dashboard among all Rays of this machine, and waits for those of others.
            "RAY_API_SERVER_ADDRESS": self.address,
        }
        with self._log.open("ab") as log:
            started = subprocess.Popen(
                [RAY, "start", *options],
                env=os.environ | self.environment | variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(started)

    def _wait(self, machines: int = 1, seconds: float = 120.0) -> None:
        """Wait until the dashboard answers and lists ``machines`` live machines."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, ValueError, KeyError):
                status, body = self.get("/api/v0/nodes?detail=1", self.headers)
                nodes = json.loads(body)["data"]["result"]["result"] if status == 200 else []
                if sum(node["state"] == "ALIVE" for node in nodes) >= machines:
                    return
            if time.monotonic() > end or any(started.poll() is not None for started in self._processes):
                raise RuntimeError(f"the cluster does not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.3)
