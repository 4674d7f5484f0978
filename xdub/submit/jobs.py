"""Jobs of a Ray cluster: submit, list, follow, stop. The only user of Ray's job client."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdub.errors import UserError
from xdub.runtime_env import prepare_environment
from xdub.submit.command import Command
from xdub.submit.versions import SUBMITTED, versions
from xdub.submit.wheels import build_wheels

ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}
INTERRUPTED = 130
PATIENCE_SECONDS = 60.0
TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers of Ray that tell of every file that is packed and sent."""
STOP_SECONDS = 180
"""What a job has from the request to stop until it is killed: for a step of the largest recipe and a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One line of `xdub jobs list`."""

    id: str
    status: str
    command: str
    seconds: float
    message: str


class Jobs:
    """The jobs of the cluster whose dashboard answers at ``address``."""

    def __init__(self, address: str) -> None:
        """UserError when it does not answer, refuses our token, or runs another Ray."""
        if not address.startswith(("http://", "https://")):
            raise UserError(
                f"--address {address}: give the dashboard's address, such as http://127.0.0.1:8265 (through a tunnel: "
                "`ray dashboard cluster.yaml`, or `kubectl port-forward`)"
            )
        prepare_environment()
        from ray.job_submission import JobSubmissionClient

        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        self.address = address
        try:
            self._client = JobSubmissionClient(address)
            # Its get_version() tells the version of the interface, the answer behind it Ray's as well.
            there = self._client._do_request("GET", "/api/version").json()["ray_version"]
        except Exception as error:
            raise _told(error, address) from error
        if there != versions()["ray"]:
            raise UserError(
                f"{address}: ray {there} there, {versions()['ray']} here; submit with the cluster's version"
            )

    def submit(self, command: Command, *, name: str, environment: Mapping[str, str]) -> str:
        """Send code and command; the job's id, ``name-ATTEMPT``. UserError while an earlier attempt still runs."""
        earlier = self._attempts(name)
        running = [job.id for job in earlier.values() if job.status not in ENDED]
        if running:
            raise UserError(
                f"{running[0]} still runs: `xdub jobs logs {running[0]} -f` follows it, `xdub jobs stop` ends it, "
                "another --name starts one beside it"
            )
        job_id = f"{name}-{max(earlier, default=0) + 1}"
        # Ray's supervisor of the job lives in the job's environment, and would wait 3 seconds.
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **environment}
        variables[SUBMITTED] = json.dumps(versions())
        with tempfile.TemporaryDirectory(prefix="xdub-submit-") as scratch:
            folder = Path(scratch)
            working = folder / "working"
            working.mkdir()
            for path in command.files:
                shutil.copy(path, working / path.name)
            (working / "command.txt").write_text(shlex.join([*command.verb, *command.arguments]) + "\n")
            wheels = build_wheels(folder)
            self._send(
                entrypoint=shlex.join(["python", "-m", "xdub.cli.job", *command.verb, *command.arguments]),
                submission_id=job_id,
                runtime_env={
                    "working_dir": str(working),
                    "py_modules": [str(wheel) for wheel in wheels],
                    "env_vars": variables,
                },
                metadata={"name": name, "verb": " ".join(command.verb), "out": command.out or ""},
            )
        return job_id

    def _send(self, **job: Any) -> None:
        """A cluster that has just come up may need a moment until it takes jobs."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self._client.submit_job(**job)
                return
            except Exception as error:
                if "No available agent" not in str(error) or time.monotonic() > end:
                    raise _told(error, self.address) from error
                time.sleep(1.0)

    def all(self) -> list[Job]:
        """All jobs, newest first."""
        found = [self._job(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted(found, key=lambda job: job.seconds)

    def status(self, job_id: str) -> Job:
        return self._job(self._client.get_job_info(self._known(job_id)))

    def logs(self, job_id: str) -> str:
        """What it has printed so far."""
        return self._client.get_job_logs(self._known(job_id))

    def follow(self, job_id: str) -> int:
        """Print what the job prints until it ends; its exit code (130 if it was stopped)."""

        async def copy() -> None:
            async for text in self._client.tail_job_logs(job_id):
                sys.stdout.write(text)
                sys.stdout.flush()

        asyncio.run(copy())
        while (details := self._client.get_job_info(self._known(job_id))).status not in ENDED:
            time.sleep(0.5)  # the log ends a moment before the job does
        if details.status == "SUCCEEDED":
            return 0
        if details.status == "STOPPED":
            return INTERRUPTED
        return details.driver_exit_code or 1

    def stop(self, job_id: str) -> Job:
        """Ask it to end with a checkpoint, wait for it. The same submission continues there."""
        self._client.stop_job(self._known(job_id))
        end = time.monotonic() + STOP_SECONDS + 30.0
        while (job := self.status(job_id)).status not in ENDED and time.monotonic() < end:
            time.sleep(0.5)
        return job

    def _known(self, job_id: str) -> str:
        try:
            self._client.get_job_info(job_id)
        except Exception as error:
            if "does not exist" in str(error) or "404" in str(error):
                ids = ", ".join(job.id for job in self.all()[:5]) or "none"
                raise UserError(f"{self.address} has no job {job_id}; the latest are: {ids}") from error
            raise _told(error, self.address) from error
        return job_id

    def _attempts(self, name: str) -> dict[int, Job]:
        pattern = re.compile(rf"{re.escape(name)}-(\d+)")
        return {int(m[1]): job for job in self.all() if (m := pattern.fullmatch(job.id))}

    def _job(self, details: Any) -> Job:
        begun = (details.start_time or 0) / 1000
        command = details.entrypoint.removeprefix("python -m xdub.cli.job ")
        message = " ".join((details.message or "").split())
        return Job(
            id=details.submission_id,
            status=str(details.status.value),
            command=command,
            seconds=time.time() - begun,
            message=message,
        )


def job_name(command: Command) -> str:
    """``train-lip-myrun``: what is continued by the same submission has the same name."""
    phase = command.arguments[:1] if command.verb == ("train",) else ()
    words = [*command.verb, *phase, *([Path(command.out).name] if command.out else [])]
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", "-".join(words))


def _told(error: Exception, address: str) -> Exception:
    """Ray's errors as one line where the user can do something."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, ConnectionError) or "Failed to connect" in text:
        return UserError(
            f"{address}: no Ray dashboard answers; is the cluster up, and the tunnel to it open?"
        )
    if any(word in text.lower() for word in ("401", "403", "unauthorized", "authentication", "token")):
        return UserError(
            f"{address} refuses our token: put the cluster's into the file that RAY_AUTH_TOKEN_PATH names (default "
            "~/.ray/auth_token)"
        )
    return UserError(f"{address}: {text}") if isinstance(error, RuntimeError) else error
