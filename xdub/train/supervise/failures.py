"""Classify the failure of a worker group, and count failures without progress."""

from __future__ import annotations

import json
import re
import time
import traceback
from typing import TYPE_CHECKING

from xdub.errors import UserError
from xdub.files.atomic import DISK_FULL
from xdub.files.lines import LineFile, read_lines
from xdub.files.run_folder import PhaseFolder

if TYPE_CHECKING:
    from ray.train import TrainingFailedError

USER, NO_BATCH, MACHINERY, CONNECTION, DEFECT = "user", "no batch", "machinery", "connection", "defect"
"""Kinds of a rank's exception."""


class Failures:
    """The failures of a phase since this object was created."""

    def __init__(self, folder: PhaseFolder) -> None:
        """``folder``: OUT/<phase>. Failures of earlier drivers stay in the file but do not count."""
        self._path, self._folder = folder.failures, folder
        self._earlier = sum(1 for _ in read_lines(self._path))

    def record(self, failure: str) -> None:
        """Append one failure, with the newest checkpoint's step."""
        file = LineFile(self._path)
        file.append({"time": time.time(), "step": self._folder.newest_step, "failure": failure})
        file.close()

    def in_a_row(self) -> int:
        """Count the failures since the newest checkpoint: a run that writes checkpoints between them is healthy."""
        step = self._folder.newest_step
        return sum(record["step"] == step for record in list(read_lines(self._path))[self._earlier :])


class RankError(Exception):
    """A rank's exception as one line of JSON {kind, message, traceback}.

    Some versions of Ray pass on an exception of a train function as the text of its traceback, so the facts must be in
    that text.
    """


def rank_failure(error: Exception) -> RankError:
    """Return the exception that a rank raises in place of ``error``; call it in the handler of ``error``."""
    facts = {"kind": _kind(error), "message": str(error), "traceback": traceback.format_exc()}
    return RankError(json.dumps(facts))


def judge(error: TrainingFailedError) -> str:
    """Describe an infrastructure failure in one line.

    Raise UserError or RuntimeError (a defect) where a retry would repeat the failure.
    """
    failures = getattr(error, "worker_failures", None)
    if not failures:
        cause = getattr(error, "controller_failure", error)
        return f"the worker group could not be run ({type(cause).__name__}: {_first_line(cause)})"
    facts = {rank: _facts(failure) for rank, failure in sorted(failures.items())}
    for fact in facts.values():
        if fact["kind"] == USER:
            raise UserError(fact["message"])
    if any(fact["kind"] == NO_BATCH for fact in facts.values()):
        return "no batch was computed for minutes; the machine may be overloaded"
    for rank, fact in facts.items():
        if fact["kind"] == DEFECT:
            raise RuntimeError(f"worker {rank} failed:\n{fact['traceback']}")
    lost = [rank for rank, fact in facts.items() if fact["kind"] != CONNECTION]
    return f"lost worker {', '.join(map(str, lost or facts))}"


def _facts(failure: Exception) -> dict[str, str]:
    """Return a rank's report of its exception. A rank without a report died, or Ray lost contact with it."""
    if isinstance(failure, RankError):
        return json.loads(str(failure))
    reports = re.findall(rf"^{__name__}\.RankError: (.+)$", str(failure), flags=re.MULTILINE)
    return json.loads(reports[-1]) if reports else {"kind": MACHINERY}


def _kind(error: Exception) -> str:
    """Classify a rank's exception."""
    from ray.exceptions import RayError

    if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in DISK_FULL):
        return USER
    # Older versions of Ray Data have no such exception to import.
    if type(error).__name__ == "ExecutionTimeoutError":
        return NO_BATCH
    if isinstance(error, RuntimeError) and _is_broken_connection(error):
        return CONNECTION
    return MACHINERY if isinstance(error, (RayError, ConnectionError)) else DEFECT


def _is_broken_connection(error: Exception) -> bool:
    """Return True for the error that a rank gets when a peer has died."""
    text = f"{type(error).__name__}: {error}"
    # NCCL reports a GPU without free memory, too.
    if "out of memory" in text:
        return False
    signs = ("gloo", "NCCL", "Connection", "closed by", "Broken pipe", "DistBackendError")
    return any(sign in text for sign in signs)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
