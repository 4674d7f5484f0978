"""A training run in separate processes, and the ways in which operators and clouds kill them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder
from xdub.train.state.committed_steps import last_record

TITLES = {
    "worker": "ray::RayTrainWorker",
    "data actor": "ray::MapWorker",
    "controller": "ray::TrainController",
}
"""Title of each kind of Ray process; the driver has no title."""
KINDS = (*TITLES, "driver")
"""Kinds of processes that can be killed."""


class Run:
    """`xdub train ... --resume` into OUT, which is resubmitted after its driver is killed."""

    def __init__(
        self,
        out: Path,
        data: Path,
        settings: Sequence[str],
        *,
        phase: str = "generator",
        options: Sequence[str] = (),
        address: str = "",
    ) -> None:
        """Submit the run. ``address``: a running Ray; empty: the driver starts one."""
        self.address = address
        self.out, self.folder = out, PhaseFolder(out, phase)
        xdub = Path(sys.executable).with_name("xdub")
        self._command = [str(xdub), "train", phase, "--recipe", "tiny", "--data", str(data)]
        self._command += ["--out", str(out), "--resume", *options]
        for setting in settings:
            self._command += ["--set", setting]
        self._log = out.with_suffix(".log")
        self.submitted = 0
        self.submit()

    def submit(self) -> None:
        """Start the driver."""
        with self._log.open("ab") as log:
            environment = os.environ | {"RAY_ADDRESS": self.address, "MLFLOW_TRACKING_URI": ""}
            self.driver = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self.submitted += 1

    def step(self) -> int:
        """Return the last committed step."""
        record = last_record(self.folder.steps)
        return record["step"] if record else 0

    def wait_for_step(self, step: int, seconds: float = 600.0) -> float:
        """Wait until a step is committed; return its time. Raises ``RuntimeError`` if the driver ends first."""
        return self._wait(lambda: self.step() >= step, f"step {step}", seconds)

    def wait_for_attempt(self, attempt: int, seconds: float = 600.0) -> float:
        """Wait until an attempt has committed its first step; return its time."""

        def reached() -> bool:
            record = last_record(self.folder.steps)
            return record is not None and record["attempt"] >= attempt

        return self._wait(reached, f"attempt {attempt}", seconds)

    def wait_for_workers(self, workers: int, attempt: int, seconds: float = 600.0) -> float:
        """Wait until an attempt has started with ``workers`` workers; return its time."""
        return self._wait(
            lambda: len(self.workers()) >= attempt and self.workers()[-1] == workers,
            f"attempt {attempt} with {workers} workers",
            seconds,
        )

    def _wait(self, reached: Callable[[], bool], event: str, seconds: float) -> float:
        end = time.monotonic() + seconds
        while not reached():
            code = self.driver.poll()
            if code is not None and not reached():
                raise RuntimeError(
                    f"{event}: the driver ended with {code} at step {self.step()}: {self.log_tail()}"
                )
            if time.monotonic() > end:
                raise RuntimeError(f"no {event} after {seconds:g} s: {self.log_tail()}")
            time.sleep(0.02)
        return time.monotonic()

    def finish(self, seconds: float = 1200.0) -> None:
        """Wait for the driver. Raises ``RuntimeError`` if it fails."""
        if self.driver.wait(timeout=seconds) != 0:
            raise RuntimeError(f"the driver ended with {self.driver.returncode}: {self.log_tail()}")

    def kill(self, kind: str, seconds: float = 60.0) -> float:
        """Kill -9 a process of the kind as soon as one exists, and resubmit a killed driver; return the time."""
        if kind == "driver":
            killed_at = time.monotonic()
            os.kill(self.driver.pid, signal.SIGKILL)
            self.driver.wait()
            self.submit()
            return killed_at
        end = time.monotonic() + seconds
        while not (victims := self._processes(TITLES[kind])):
            if time.monotonic() > end:
                raise RuntimeError(f"there is no {kind} to kill")
            time.sleep(0.05)
        killed_at = time.monotonic()
        victims[-1].kill()
        return killed_at

    def stop(self, kind: str) -> None:
        """Pause a process with SIGSTOP, as a hang."""
        self._processes(TITLES[kind])[-1].suspend()

    def _processes(self, title: str) -> list[psutil.Process]:
        matching = []
        for process in psutil.Process(self.driver.pid).children(recursive=True):
            try:
                if process.cmdline()[:1] and process.cmdline()[0].startswith(title):
                    matching.append(process)
            except psutil.Error:
                continue
        return sorted(matching, key=lambda process: process.pid)

    def curve(self) -> list[tuple[int, str, list[str]]]:
        """Return the committed record: (step, loss as hex, sample ids)."""
        return [(r["step"], r["loss"], r["sample_ids"]) for r in read_lines(self.folder.steps)]

    def losses(self) -> list[float]:
        """Return the losses of all committed steps."""
        return [float.fromhex(loss) for _, loss, _ in self.curve()]

    def attempts(self) -> int:
        """Return the number of attempts."""
        return len(self.workers())

    def workers(self) -> list[int]:
        """Return the number of workers of each attempt."""
        return [r["workers"] for r in read_lines(self.folder.attempts)]

    def metrics(self, name: str) -> list[float]:
        """Return all values of one metric of the journal."""
        records = read_lines(self.folder.journal)
        return [r["values"][name] for r in records if r["kind"] == "metrics" and name in r["values"]]

    def run_ids(self) -> dict:
        """Return MLflow's ids of parent and phases."""
        path = self.folder.run.state
        state = json.loads(path.read_text()) if path.is_file() else {}
        return {key: state.get(key) for key in ("parent", "phases")}

    def log_tail(self) -> str:
        """Return the last 15 lines of the driver's log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
