"""What ended a worker group, whether another one may help, and how often that was so without getting on."""

from __future__ import annotations

import time
from pathlib import Path

from xdub.errors import UserError
from xdub.files.lines import LineFile, read_lines
from xdub.train.state.checkpoint import newest_step

FAILURES = "failures.jsonl"
"""{time, step (of the newest checkpoint), failure} of every lost worker group."""


class Failures:
    """The failures of a phase since a driver began to look; shared with Ray's controller through their file."""

    def __init__(self, folder: Path, since: int | None = None) -> None:
        """``since``: so many older records don't count; all that are there if not given."""
        self.path, self._checkpoints = folder / FAILURES, folder / "checkpoints"
        self.since = self.count() if since is None else since

    def count(self) -> int:
        """Records there are."""
        return sum(1 for _ in read_lines(self.path))

    def note(self, failure: str) -> None:
        """One more."""
        file = LineFile(self.path)
        file.append({"time": time.time(), "step": newest_step(self._checkpoints), "failure": failure})
        file.close()

    def in_a_row(self) -> int:
        """Failures at the newest checkpoint: a run that gets on between them is not in trouble."""
        step = newest_step(self._checkpoints)
        return sum(record["step"] == step for record in list(read_lines(self.path))[self.since :])

    def texts(self) -> list[str]:
        """In order."""
        return [record["failure"] for record in list(read_lines(self.path))[self.since :]]


def judge(error: Exception) -> str:
    """A line about lost machinery, or UserError (RuntimeError: a defect) for what another attempt would only repeat.

    ``error``: Ray Train's, with the failures of its workers or of its controller.
    """
    from ray.data.exceptions import ExecutionTimeoutError

    failures = getattr(error, "worker_failures", None) or {0: getattr(error, "controller_failure", error)}
    causes = {rank: getattr(failure, "_base_exc", failure) for rank, failure in sorted(failures.items())}
    for cause in causes.values():
        if isinstance(cause, UserError):
            raise cause from None
    if any(isinstance(cause, ExecutionTimeoutError) for cause in causes.values()):
        return "no batch was made for minutes, the machine may be overloaded"
    for rank, cause in causes.items():
        if not _is_machinery(cause):
            traceback = getattr(failures[rank], "_traceback_str", str(cause))
            raise RuntimeError(f"worker {rank} failed:\n{traceback}") from None
    lost = [rank for rank, cause in causes.items() if not _is_broken_connection(cause)]
    return f"lost worker {', '.join(map(str, lost or causes))}"


def _is_machinery(cause: BaseException) -> bool:
    """Dead processes and nodes, and what their peers see of it."""
    from ray.exceptions import RayError
    from ray.train.v2._internal.exceptions import RayTrainError

    return isinstance(cause, (RayError, RayTrainError, ConnectionError)) or _is_broken_connection(cause)


def _is_broken_connection(cause: BaseException) -> bool:
    text = f"{type(cause).__name__}: {cause}"
    signs = ("gloo", "NCCL", "Connection", "closed by", "Broken pipe", "DistBackendError")
    return isinstance(cause, RuntimeError) and any(sign in text for sign in signs)
