"""The supervisor: runs a job's workers with Ray Train, or in this process, and again after whatever is not the user's.

One worker group is one *attempt*. It ends with the phase, with a failure, or because it was asked to stop: by the user
(SIGTERM, SIGINT), or by the watch over the cluster, when a machine is about to be taken away or more are there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from xdub.config import TrainConfig, recipe_from_dict
from xdub.data.lines import LineFile, read_lines
from xdub.errors import UserError
from xdub.ray_session import ensure_ray
from xdub.train.checkpoint import newest_step
from xdub.train.cluster import POLL_SECONDS, reason_to_restart, use_gpu, wait_for_workers
from xdub.train.trainer import STOP_FILE
from xdub.train.worker import RESULT, WORKERS, TrainJob, run_here, run_in_ray

MAX_FAILURES = 4
"""Failures in a row without a new checkpoint after which a run is given up. Failures that cost less are survived."""

BACK_OFF_SECONDS = (0.0, 2.0, 10.0, 30.0)
USER = "the user asked for it"
ATTEMPTS = "attempts.jsonl"
"""{attempt, time, workers} of every start."""


def run_job(job: TrainJob, *, local: bool) -> int:
    """Run to the end or to a stop request; the number of attempts it took. UserError when going on makes no sense."""
    folder = Path(job.folder)
    with _stop_on_signal(folder):
        if local:
            run_here(_next_attempt(job, folder, workers=1))
            return 1
        return _supervise(job, folder)


def _supervise(job: TrainJob, folder: Path) -> int:
    train = recipe_from_dict(job.recipe).for_phase(job.phase)
    attempts, failures, reached = 0, 0, newest_step(folder / "checkpoints")
    while True:
        workers = wait_for_workers(train, lambda: _stop_reason(folder) == USER)
        if not workers:
            return attempts
        with _watch_cluster(folder, train, workers):
            failure = _fit(_next_attempt(job, folder, workers), workers)
        attempts += 1
        if failure is None:
            reason = _stop_reason(folder)
            if (folder / RESULT).is_file() or reason is None or reason == USER:
                return attempts
            print(f"{job.phase}: starting anew, {reason}", file=sys.stderr)
            (folder / STOP_FILE).unlink(missing_ok=True)
            continue
        if _stop_reason(folder) == USER:
            raise UserError(
                f"{job.phase}: {failure} while stopping; --resume continues from the last checkpoint"
            )
        newest = newest_step(folder / "checkpoints")
        failures, reached = (1 if newest > reached else failures + 1), newest
        if failures >= MAX_FAILURES:
            raise UserError(
                f"{job.phase} failed {failures} times without getting on, last: {failure}; run again with --resume"
            )
        print(f"{job.phase}: {failure}; continuing from the last checkpoint", file=sys.stderr)
        (folder / STOP_FILE).unlink(missing_ok=True)
        time.sleep(BACK_OFF_SECONDS[failures - 1])


def _next_attempt(job: TrainJob, folder: Path, workers: int) -> TrainJob:
    """The job with its attempt's number, which is noted with the time: goodput counts from the first one's."""
    path = folder / ATTEMPTS
    records = list(read_lines(path))
    attempt = records[-1]["attempt"] + 1 if records else 1
    file = LineFile(path)
    file.append({"attempt": attempt, "time": time.time(), "workers": workers})
    file.close()
    return replace(job, attempt=attempt, begun=records[0]["time"] if records else time.time())


def _fit(job: TrainJob, workers: int) -> str | None:
    """One worker group from start to end: None, or what went wrong if another attempt may help."""
    ensure_ray(workers + 2)
    import ray.exceptions
    from ray.train import TrainingFailedError
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    storage, gpu = Path(job.folder).resolve() / ".ray", use_gpu()
    trainer = TorchTrainer(
        run_in_ray,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(
            name=f"attempt{job.attempt}",
            storage_path=str(storage),
            # Failures are ours to judge: Ray would also retry a wrong recipe, and not a lost controller.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        _in_thread(trainer.fit)
    except TrainingFailedError as error:
        return _judge(error)
    except ray.exceptions.RayError as error:
        # What the controller had reserved stays reserved for as long as we are connected, and the next attempt would
        # wait for it without end: a new connection (a new Ray, if it is ours) frees it.
        ray.shutdown()
        return f"the training controller was lost ({type(error).__name__})"
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    return None


def _in_thread(function: Callable[[], Any]) -> None:
    """Call and wait. In the main thread Ray would take SIGINT for itself, and ours would wait for it to return."""
    errors: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, name="ray-train-fit", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    if errors:
        raise errors[0]


def _judge(error: Exception) -> str:
    """A line about lost machinery, or UserError for what another attempt would only repeat."""
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


def _stop_reason(folder: Path) -> str | None:
    """None while nobody asked; a file without a word in it is the user's."""
    path = folder / STOP_FILE
    return (path.read_text("utf-8") or USER) if path.is_file() else None


@contextmanager
def _watch_cluster(folder: Path, train: TrainConfig, workers: int) -> Generator[None]:
    """Asks the attempt to stop, with a checkpoint, when it had better run elsewhere or with more workers."""
    done = threading.Event()

    def watch() -> None:
        before = None
        while not done.wait(POLL_SECONDS):
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
