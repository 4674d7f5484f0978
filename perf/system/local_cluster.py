"""A Ray cluster of several machines that are processes here, with dashboard and token: what jobs are submitted to."""

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


class LocalCluster:
    """A head with ``cpus`` and ``more`` raylets with as many; all on loopback, behind a token of its own.

    Use as a context manager. ``environment`` is what a client needs.
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
        self._scratch = Path(
            tempfile.mkdtemp(prefix="ray-")
        )  # short: a socket's path has 107 characters at most
        common = ["--block", f"--num-cpus={self._cpus}", "--object-store-memory=200000000"]
        head = ["--head", "--node-ip-address=127.0.0.1", f"--port={self.port}", "--dashboard-host=127.0.0.1"]
        self._start([*head, f"--dashboard-port={self._dashboard}", f"--temp-dir={self._scratch}/m0", *common])
        self._wait()
        for number in range(
            1, self._more + 1
        ):  # one after the other: two at once time out on a small machine
            # Machines that unpack the same code in the same folder get in each other's way.
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
        """All of the cluster, jobs included: they share the sessions that we have started."""
        return in_sessions({started.pid for started in self._processes})

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """(status, body) of the dashboard's answer."""
        request = urllib.request.Request(self.address + path, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    @property
    def headers(self) -> dict[str, str]:
        """With our token."""
        return {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}

    def _start(self, options: list[str]) -> None:
        # With its usual port the agent that takes jobs would not start beside another Ray.
        options = [*options, f"--dashboard-agent-listen-port={free_port()}"]
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"  # a job's `python` is ours
        with self._log.open("ab") as log:
            started = subprocess.Popen(
                [RAY, "start", *options],
                env=os.environ | self.environment | {"PATH": path, LOOPBACK: "1"},  # several machines need it
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(started)

    def _wait(self, machines: int = 1, seconds: float = 120.0) -> None:
        """Until the dashboard answers and knows so many machines."""
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
