"""Supervise a job: run its workers with Ray Train, or in this process, and restart them after infrastructure failures.

One worker group is one *attempt*. An attempt ends with the phase, with a failure, or after a stop request. A stop is
requested by the user (SIGTERM, SIGINT), or by the watch over the cluster, when a machine is about to be reclaimed or
more machines have arrived.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from types import FrameType
from typing import TypeAlias

from xdub.config import TrainConfig
from xdub.errors import UserError
from xdub.files.run_folder import PhaseFolder
from xdub.progress import leave_closed_terminal
from xdub.ray_session import disconnect, ensure_ray
from xdub.train.rank import TrainJob, attempts_so_far, run_locally
from xdub.train.supervise.cluster import POLL_SECONDS, reason_to_restart, request_machines, wait_for_workers
from xdub.train.supervise.failures import Failures
from xdub.train.supervise.worker_group import fit

MAX_FAILURES = 4
"""Number of failures in a row after which a run fails; a new checkpoint resets the count."""

BACK_OFF_SECONDS = (0.0, 2.0, 10.0)
"""Pause before the next attempt, after the first, second and third failure in a row."""
USER = "the user asked for it"
"""Content of the stop file when the user requests the stop."""

SignalHandler: TypeAlias = Callable[[int, FrameType | None], object] | int | None


def run_job(job: TrainJob, *, local: bool) -> int:
    """Run to the end or to a stop request; return the number of attempts.

    Raise UserError where a retry cannot help.
    """
    folder = job.folder
    before = attempts_so_far(folder)
    with _stop_on_signal(folder):
        if local:
            run_locally(job)
        else:
            try:
                _supervise(job)
            finally:
                request_machines(job.train, 0)
    return attempts_so_far(folder) - before


def _supervise(job: TrainJob) -> None:
    """Run attempts until the phase ends, the user stops it, or it fails for good."""
    folder, train = job.folder, job.train
    failures = Failures(folder)
    while workers := wait_for_workers(train, lambda: _stop_reason(folder) == USER):
        with _watch_cluster(folder, train, workers):
            failure = _fit(job, workers)
        reason = _stop_reason(folder)
        if failure is None:
            if folder.result.is_file() or reason is None or reason == USER:
                return
            print(f"{job.phase}: restarting, {reason}", file=sys.stderr)
            folder.stop_request.unlink(missing_ok=True)
            continue
        if reason == USER:
            raise UserError(
                f"{job.phase}: {failure} while stopping; --resume continues from the last checkpoint"
            )
        failures.record(failure)
        in_a_row = failures.in_a_row()
        if in_a_row >= MAX_FAILURES:
            raise UserError(
                f"{job.phase} failed {in_a_row} times in a row without a new checkpoint; last failure: {failure}; "
                "run again with --resume"
            )
        print(f"{job.phase}: {failure}; continuing from the last checkpoint", file=sys.stderr)
        folder.stop_request.unlink(missing_ok=True)
        time.sleep(BACK_OFF_SECONDS[in_a_row - 1])


def _fit(job: TrainJob, workers: int) -> str | None:
    """Run one attempt; return None at its orderly end, or the failure that another attempt may survive."""
    ensure_ray(workers + 2)
    import ray.exceptions

    try:
        return _in_thread(lambda: fit(job, workers))
    except ray.exceptions.RayError as error:
        # The lost controller's resources stay reserved for as long as this process is connected, and the next attempt
        # would wait for them without end. A new connection (a new Ray, if this process started it) frees them. The
        # caller's own connection stays, because it may hold the caller's work.
        disconnect()
        return f"the training controller was lost ({type(error).__name__}{_start_error(error)})"


def _start_error(error: Exception) -> str:
    """Return ": " and the last line of the error with which a process failed to start, "" for any other death."""
    text = str(error).strip()
    return f": {text.splitlines()[-1][:300]}" if "raised in its creation task" in text else ""


def _in_thread(function: Callable[[], str | None]) -> str | None:
    """Call ``function`` in a thread and wait.

    In the main thread Ray would replace our SIGINT handler, and ours would run after Ray returns. The thread is a
    daemon, so a second SIGINT does not wait for it either.
    """
    result: Future[str | None] = Future()

    def call() -> None:
        try:
            result.set_result(function())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=call, name="ray-train-fit", daemon=True).start()
    while not result.done():
        wait([result], timeout=0.2)
    return result.result()


def _stop_reason(folder: PhaseFolder) -> str | None:
    """Return why a stop is requested, None without a request. An empty file is a request of the user."""
    path = folder.stop_request
    return (path.read_text("utf-8") or USER) if path.is_file() else None


@contextmanager
def _watch_cluster(folder: PhaseFolder, train: TrainConfig, workers: int) -> Generator[None]:
    """Request a checkpoint and a stop as soon as another set of machines is better."""
    done = threading.Event()

    def watch() -> None:
        before = None
        while not done.wait(POLL_SECONDS):
            try:
                nodes = json.loads(folder.workers.read_text("utf-8"))["nodes"]
                reason = reason_to_restart(train, workers, nodes)
            except Exception:  # no attempt is running yet, or Ray is restarting: check again later
                continue
            if reason is not None and reason == before and _stop_reason(folder) is None:
                folder.stop_request.write_text(reason, "utf-8")
            before = reason

    folder.workers.unlink(missing_ok=True)
    thread = threading.Thread(target=watch, name="watch-cluster", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _stop_on_signal(folder: PhaseFolder) -> Generator[None]:
    """Turn SIGTERM, SIGINT and SIGHUP into a stop request with a checkpoint; a second one ends the process at once."""
    stop_file = folder.stop_request
    stop_file.unlink(missing_ok=True)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, SignalHandler] = {}

    def request(number: int, frame: FrameType | None) -> None:
        if _stop_reason(folder) == USER:
            signal.signal(number, before[number])
            os.kill(os.getpid(), number)
        stop_file.write_text(USER, "utf-8")
        if number == signal.SIGHUP:
            leave_closed_terminal()
        print("stopping after this step, with a checkpoint", file=sys.stderr)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup
        before[number] = signal.signal(number, request)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop_file.unlink(missing_ok=True)
