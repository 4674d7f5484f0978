"""The supervisor: runs a job's workers with Ray Train, or in this process, and again after whatever is not the user's.

One worker group is one *attempt*. It ends with the phase, with a failure, or because it was asked to stop: by the user
(SIGTERM, SIGINT), or by the watch over the cluster, when a machine is about to be taken away or more are there. After a
first failure Ray's controller replaces it (worker_group.py); everything else is decided here.
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
from pathlib import Path
from typing import Any

from xdub.config import TrainConfig, recipe_from_dict
from xdub.errors import UserError
from xdub.ray_session import ensure_ray
from xdub.train.rank import RESULT, WORKERS, TrainJob, attempts_so_far, run_here
from xdub.train.supervise.cluster import POLL_SECONDS, ask_autoscaler, reason_to_restart, wait_for_workers
from xdub.train.supervise.failures import Failures
from xdub.train.supervise.worker_group import fit
from xdub.train.trainer import STOP_FILE

MAX_FAILURES = 4
"""Failures in a row without a new checkpoint after which a run is given up. Failures that cost less are survived."""

BACK_OFF_SECONDS = (0.0, 2.0, 10.0)
USER = "the user asked for it"


def run_job(job: TrainJob, *, local: bool) -> int:
    """Run to the end or to a stop request; the number of attempts it took. UserError when going on makes no sense."""
    folder = Path(job.folder)
    before = attempts_so_far(folder)
    with _stop_on_signal(folder):
        if local:
            run_here(job)
        else:
            train = recipe_from_dict(job.recipe).for_phase(job.phase)
            try:
                _supervise(job, train, folder)
            finally:
                ask_autoscaler(train, 0)
    return attempts_so_far(folder) - before


def _supervise(job: TrainJob, train: TrainConfig, folder: Path) -> None:
    failures = Failures(folder)
    while workers := wait_for_workers(train, lambda: _stop_reason(folder) == USER):
        with _watch(folder, job.phase, train, workers, failures):
            failure = _fit(job, train, workers, failures)
        reason = _stop_reason(folder)
        if failure is None:
            if (folder / RESULT).is_file() or reason is None or reason == USER:
                return
            print(f"{job.phase}: starting anew, {reason}", file=sys.stderr)
            (folder / STOP_FILE).unlink(missing_ok=True)
            continue
        if reason == USER:
            raise UserError(
                f"{job.phase}: {failure} while stopping; --resume continues from the last checkpoint"
            )
        failures.note(failure)
        in_a_row = failures.in_a_row()
        if in_a_row >= MAX_FAILURES:
            raise UserError(
                f"{job.phase} failed {in_a_row} times without getting on, last: {failure}; run again with --resume"
            )
        _tell_failure(job.phase, failure)
        (folder / STOP_FILE).unlink(missing_ok=True)
        time.sleep(BACK_OFF_SECONDS[in_a_row - 1])


def _fit(job: TrainJob, train: TrainConfig, workers: int, failures: Failures) -> str | None:
    """One controller from start to end: None, or what went wrong if another one may help."""
    ensure_ray(workers + 2)
    import ray.exceptions

    try:
        return _in_thread(lambda: fit(job, train, workers, failures))
    except ray.exceptions.RayError as error:
        # What the controller had reserved stays reserved for as long as we are connected, and the next attempt would
        # wait for it without end: a new connection (a new Ray, if it is ours) frees it.
        ray.shutdown()
        return f"the training controller was lost ({type(error).__name__})"


def _in_thread(function: Callable[[], str | None]) -> str | None:
    """Call and wait. In the main thread Ray would take SIGINT for itself, and ours would wait for it to return.

    The thread is a daemon: a second SIGINT must not wait for it either.
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


def _tell_failure(phase: str, failure: str) -> None:
    print(f"{phase}: {failure}; continuing from the last checkpoint", file=sys.stderr)


def _stop_reason(folder: Path) -> str | None:
    """None while nobody asked; a file without a word in it is the user's."""
    path = folder / STOP_FILE
    return (path.read_text("utf-8") or USER) if path.is_file() else None


@contextmanager
def _watch(folder: Path, phase: str, train: TrainConfig, workers: int, failures: Failures) -> Generator[None]:
    """Tells of groups that were replaced, and asks for a checkpoint and an end where another cluster is better."""
    done, told = threading.Event(), len(failures.texts())

    def tell() -> None:
        nonlocal told
        for failure in failures.texts()[told:]:
            _tell_failure(phase, failure)
            told += 1

    def watch() -> None:
        before = None
        while not done.wait(POLL_SECONDS):
            tell()
            try:
                running = json.loads((folder / WORKERS).read_text("utf-8"))["nodes"]
                reason = reason_to_restart(train, workers, running)
            except Exception:  # no attempt is running yet, or Ray is restarting: look again later
                continue
            if reason is not None and reason == before and _stop_reason(folder) is None:
                (folder / STOP_FILE).write_text(reason, "utf-8")
            before = reason

    (folder / WORKERS).unlink(missing_ok=True)
    thread = threading.Thread(target=watch, name="watch-cluster", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        tell()


@contextmanager
def _stop_on_signal(folder: Path) -> Generator[None]:
    """SIGTERM and SIGINT ask the workers to checkpoint and end; a second one ends at once."""
    stop_file = folder / STOP_FILE
    stop_file.unlink(missing_ok=True)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def request(number: int, frame: Any) -> None:
        if _stop_reason(folder) == USER:
            handler: Callable | int = before[number]
            signal.signal(number, handler)
            os.kill(os.getpid(), number)
        print("stopping after this step, with a checkpoint", file=sys.stderr)
        stop_file.write_text(USER, "utf-8")

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, request)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop_file.unlink(missing_ok=True)
