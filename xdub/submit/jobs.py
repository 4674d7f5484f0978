"""Submit, list, follow and stop jobs of a Ray cluster. No other module uses Ray's job client."""

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from xdub.errors import UserError
from xdub.ray_session import environment
from xdub.runtime_env import prepare_environment
from xdub.submit.command import STOP_VARIABLE, Command, check_name
from xdub.submit.dashboard import ANSWER_SECONDS, SEND_SECONDS, Answer, call, check_address, url_part
from xdub.submit.packages import EXCLUDED, package_folders
from xdub.submit.versions import SUBMITTED, versions

ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}
"""States of a job that no longer change."""
INTERRUPTED = 130
"""Exit code of following a job that was stopped."""
PATIENCE_SECONDS = 60.0
"""Time for a cluster that has just started to accept a job."""
STOP_SECONDS = 180
"""Default of STOP_VARIABLE: enough for one step of the largest recipe and a checkpoint."""
LOGGERS = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Loggers of Ray that report every file that is packed and sent."""
ENTRY = "python -m xdub.cli.job "
"""Command line of a job, before the verb."""
EXEC = "exec "
"""Prefix of a job's command line, with which the job replaces the shell that Ray starts it in.

Ray waits until all processes of a stopped job have been reaped. A job below a shell outlives it, and would then be
reaped by the container's first process only, which often reaps nothing: the stop would take STOP_VARIABLE's seconds.
"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job of the cluster."""

    id: str
    """Name of the run and number of the attempt: ``name-2``."""
    status: str
    """State as Ray names it, such as RUNNING; see ENDED."""
    command: str
    """Verb and arguments."""
    seconds: float
    """Time since its start."""
    message: str
    """Ray's message about the state, in one line."""
    stop_seconds: float
    """Time that the job has to end after a request to stop."""


class _Details(Protocol):
    """Fields of Ray's JobDetails, whose own annotation includes None for an installation without pydantic."""

    submission_id: str | None
    status: Any
    """An enumeration of texts, so its members equal texts."""
    entrypoint: str
    message: str | None
    start_time: int | None
    """Milliseconds since 1970."""
    runtime_env: dict[str, Any] | None
    driver_exit_code: int | None


class Jobs:
    """The jobs of the cluster whose dashboard answers at ``address``."""

    def __init__(self, address: str) -> None:
        """Connect to the dashboard. UserError when the dashboard does not answer or refuses our token."""
        prepare_environment()
        from ray.job_submission import JobSubmissionClient

        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        self.address = check_address(address)
        # Ray would prefer RAY_ADDRESS, which a shell on the cluster often has, to our address.
        with environment({"RAY_API_SERVER_ADDRESS": self.address}):
            self._client = self._call(lambda: JobSubmissionClient(self.address))

    def submit(self, command: Command, *, name: str, variables: Mapping[str, str]) -> str:
        """Send code and command, and return the job's id ``name-ATTEMPT``.

        UserError for a name that cannot be part of a job's id, and while an earlier attempt still runs.
        """
        check_name(name)
        earlier = self._attempts(name)
        running = [job.id for job in earlier.values() if job.status not in ENDED]
        if running:
            raise UserError(
                f"{running[0]} still runs: `xdub jobs logs {running[0]} -f` follows it, `xdub jobs stop` ends it, "
                "another --name starts a second job"
            )
        job_id = f"{name}-{max(earlier, default=0) + 1}"
        # Ray reads the variable in the job's environment; its own default is 3 seconds.
        variables = {STOP_VARIABLE: str(STOP_SECONDS), **variables}
        variables[SUBMITTED] = json.dumps(versions())
        with tempfile.TemporaryDirectory(prefix="xdub-submit-") as scratch:
            working = Path(scratch)
            # Ray refuses an empty folder, so it has a file in any case.
            (working / "command.txt").write_text(shlex.join([*command.verb, *command.arguments]) + "\n")
            for path in command.files:
                shutil.copyfile(path, working / path.name)
            self._send(
                entrypoint=EXEC + ENTRY + shlex.join([*command.verb, *command.arguments]),
                submission_id=job_id,
                runtime_env={
                    "working_dir": str(working),
                    "py_modules": [str(folder) for folder in package_folders()],
                    "excludes": list(EXCLUDED),
                    "env_vars": variables,
                },
                metadata={"name": name, "verb": " ".join(command.verb), "out": command.out or ""},
            )
        return job_id

    def _send(self, **job: Any) -> None:
        """Submit the job; retry while a cluster that has just started has no agent for it."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self._call(lambda: self._client.submit_job(**job), SEND_SECONDS)
                return
            except UserError as error:
                if "No available agent" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(1.0)

    def all(self) -> list[Job]:
        """Return all jobs, newest first."""
        listed = cast("list[_Details]", self._call(self._client.list_jobs))
        jobs = [self._job(details) for details in listed if details.submission_id]
        return sorted(jobs, key=lambda job: job.seconds)

    def status(self, job_id: str) -> Job:
        """Return one job. UserError for an unknown id."""
        return self._job(self._details(job_id))

    def logs(self, job_id: str) -> str:
        """Return a job's output so far. UserError for an unknown id."""
        self._details(job_id)
        return self._call(lambda: self._client.get_job_logs(url_part(job_id)))

    def follow(self, job_id: str) -> int:
        """Print a job's output until the job ends, and return its exit code (130 if it was stopped)."""

        async def copy() -> None:
            async for text in self._client.tail_job_logs(url_part(job_id)):
                sys.stdout.write(text)
                sys.stdout.flush()

        self._details(job_id)
        try:
            asyncio.run(copy())
        except (OSError, RuntimeError) as error:  # aiohttp's errors are OSErrors
            raise UserError(
                f"{self.address}: the connection broke ({' '.join(str(error).split())}), and the job continues; "
                f"`xdub jobs logs {job_id} -f` follows it again"
            ) from error
        while (details := self._details(job_id)).status not in ENDED:
            time.sleep(0.5)  # the log ends a moment before the job does
        if details.status == "SUCCEEDED":
            return 0
        if details.status == "STOPPED":
            return INTERRUPTED
        return details.driver_exit_code or 1

    def stop(self, job_id: str) -> Job:
        """Request that the job ends with a checkpoint, and wait until it has ended or Ray has killed it."""
        job = self.status(job_id)
        self._call(lambda: self._client.stop_job(url_part(job_id)))
        end = time.monotonic() + job.stop_seconds + 30.0
        while (job := self.status(job_id)).status not in ENDED and time.monotonic() < end:
            time.sleep(0.5)
        return job

    def _details(self, job_id: str) -> _Details:
        part = url_part(job_id)
        try:
            # `..` would be resolved to another path of the dashboard.
            details = self._call(lambda: self._client.get_job_info(part)) if part.strip(".") else None
        except UserError as error:
            if "does not exist" not in str(error) and "status code 404" not in str(error):
                raise
            details = None
        if details is None:
            ids = ", ".join(job.id for job in self.all()[:5]) or "none"
            raise UserError(f"{self.address} has no job {job_id!r}; the latest are: {ids}")
        return cast("_Details", details)

    def _call(self, function: Callable[[], Answer], seconds: float = ANSWER_SECONDS) -> Answer:
        return call(function, self.address, seconds)

    def _attempts(self, name: str) -> dict[int, Job]:
        pattern = re.compile(rf"{re.escape(name)}-(\d+)")
        return {int(m[1]): job for job in self.all() if (m := pattern.fullmatch(job.id))}

    def _job(self, details: _Details) -> Job:
        variables = (details.runtime_env or {}).get("env_vars", {})
        return Job(
            id=str(details.submission_id),
            status=str(details.status.value),
            command=details.entrypoint.removeprefix(EXEC).removeprefix(ENTRY),
            seconds=time.time() - (details.start_time or 0) / 1000,
            message=" ".join((details.message or "").split()),
            stop_seconds=_seconds(variables.get(STOP_VARIABLE)),
        )


def _seconds(text: str | None) -> float:
    """Parse the value of STOP_VARIABLE; return STOP_SECONDS for None and for a text that is no number."""
    try:
        return STOP_SECONDS if text is None else float(text)
    except ValueError:
        return STOP_SECONDS
