"""A real MLflow server that a test can kill, pause and restart on the same store."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from perf.system.processes import free_port


class MlflowServer:
    """Server of a sqlite store in a folder, on a free loopback port. Port and store outlive the process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start the process and return at once; see `wait`."""
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}", "--workers", "1"),
            *("--artifacts-destination", str(self.folder / "artifacts")),
        ]
        variables = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=kept | variables, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, seconds: float = 180.0) -> None:
        """Wait until the server answers. Raises ``TimeoutError`` with the end of its log."""
        end = time.monotonic() + seconds
        while not self.healthy():
            if time.monotonic() > end:
                raise TimeoutError((self.folder / "server.log").read_text()[-2000:])
            time.sleep(0.2)

    def healthy(self) -> bool:
        """Return whether the server answers."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self) -> None:
        """Kill the server and all its children with -9."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Pause the server: it keeps its connections and answers nothing until `go_on`."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """End the pause of `hang`."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)
