"""Rows of the examination: one per check, with its result, seconds and peak memory."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from xdub.errors import UserError
from xdub.headers.check import Finding, split_message

Result = Literal["ok", "wrong", "not run"]
"""``not run``: the check needs something that failed in an earlier row."""

TRACE = "this error is no known mistake; the file of --json has its traceback"
"""Fix of an unexpected error."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Result of one check."""

    name: str
    part: str
    """Group of the check: files, machine, networks or stages."""
    result: Result
    words: str
    """Facts of what was checked, or the problem in one line."""
    fix: str = ""
    seconds: float = 0.0
    peak_gb: float | None = None
    """Largest memory of the GPU during the check, or of this process on a CPU, in GB; None if it was not measured."""
    trace: str = ""
    """Traceback of an error that is no mistake of the user."""

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values."""
        return asdict(self)


class NotRun(Exception):
    """A check was not run, because it needs something that failed; the message names it."""


def row_of(finding: Finding) -> Row:
    """Return the row of a network's files."""
    if finding.problem is None:
        return Row(name=finding.role, part="files", result="ok", words=finding.words)
    stage = f"{finding.stage}: " if finding.stage else ""
    words = f"{stage}{finding.problem}"
    return Row(name=finding.role, part="files", result="wrong", words=words, fix=finding.fix)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Functions that an examination calls while it runs."""

    begin: Callable[[str], None] = lambda name: None
    """Called with the name of a check before it runs."""
    end: Callable[[Row], None] = lambda row: None
    """Called with every finished row."""


QUIET = Progress()
"""No display."""


class Examiner:
    """Runs checks one after the other; a failure becomes a row and never ends the examination."""

    def __init__(self, device: torch.device, progress: Progress = QUIET) -> None:
        self.device, self.progress, self.part = device, progress, ""
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Append a row."""
        self.rows.append(row)
        self.progress.end(row)

    def check(self, name: str, run: Callable[[], str], fix: str = "") -> bool:
        """Run a check, which returns words for its facts or raises an error; return whether it passed.

        ``fix`` is the advice for an error that brings none.
        """
        self.progress.begin(name)
        gc.collect()
        memory = PeakMemory(self.device)
        begin = time.perf_counter()
        row: dict[str, Any] = {}
        try:
            row = {"result": "ok", "words": run()}
        except NotRun as error:
            row = {"result": "not run", "words": str(error)}
        except UserError as error:
            problem, own_fix = split_message(error)
            row = {"result": "wrong", "words": problem, "fix": own_fix or fix}
        # A broken network may raise any error, and the other checks go on.
        except Exception as error:
            row = {"result": "wrong", "words": one_line(error), "fix": _advice(error) or fix or TRACE}
            row["trace"] = traceback.format_exc()
        seconds = time.perf_counter() - begin
        self.add(Row(name=name, part=self.part, seconds=round(seconds, 2), peak_gb=memory.peak_gb(), **row))
        return row["result"] == "ok"


class PeakMemory:
    """Peak memory since its creation: of the GPU, or of this process as a whole on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _reset_peak_rss()

    def peak_gb(self) -> float | None:
        """Return the peak in GB; None where the system does not count it."""
        if self.device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self.device) / 1e9, 2)
        peak = _peak_rss()
        return None if peak is None else round(peak / 1e9, 2)


def one_line(error: BaseException) -> str:
    """Return the type and the first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:240]}" if text else type(error).__name__


def _advice(error: Exception) -> str:
    """Return the fix for an error of a well-known kind, else ""."""
    if isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in str(error):
        return (
            "lower train.micro_batch, set train.activation_checkpointing=full, or use a GPU with more memory "
            "(`xdub plan --fit`)"
        )
    return ""


def _reset_peak_rss() -> None:
    """Set the peak of this process's memory to its present size; Linux counts it, other systems do not."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def _peak_rss() -> int | None:
    """Return the peak of this process's memory in bytes."""
    try:
        with open("/proc/self/status") as file:
            lines = [line for line in file if line.startswith("VmHWM:")]
        return int(lines[0].split()[1]) * 1024
    except (OSError, IndexError):
        return None
