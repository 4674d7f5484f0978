"""Running a job's workers: in this process, or with Ray Train, again after a failure that is not the user's."""

from __future__ import annotations

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

from xdub.errors import UserError
from xdub.ray_session import ensure_ray
from xdub.train.trainer import STOP_FILE
from xdub.train.worker import TrainJob, run_here, run_in_ray

MAX_RESTARTS = 3
"""Failures of machines or processes that a run survives by itself."""

BACK_OFF_SECONDS = (0.0, 2.0, 10.0)


def run_job(job: TrainJob, *, workers: int, local: bool) -> int:
    """Run to the end or to a stop request; the number of attempts it took. UserError when going on makes no sense."""
    with _stop_on_signal(Path(job.folder)):
        if local:
            run_here(job)
            return 1
        for restart in range(MAX_RESTARTS + 1):
            failure = _fit(replace(job, attempt=job.attempt + restart), workers)
            if failure is None:
                return restart + 1
            if restart == MAX_RESTARTS:
                raise UserError(
                    f"{job.phase} failed {restart + 1} times, last: {failure}; run again with --resume"
                )
            print(f"{job.phase}: {failure}; continuing from the last checkpoint", file=sys.stderr)
            time.sleep(BACK_OFF_SECONDS[min(restart, len(BACK_OFF_SECONDS) - 1)])
    raise AssertionError


def check_resources(workers: int) -> None:
    """Ray waits for ever for what a cluster can not give, so ask first."""
    ensure_ray(workers + 2)
    import ray

    have, gpu = ray.cluster_resources(), _use_gpu()
    if gpu and have.get("GPU", 0) < workers:
        raise UserError(
            f"train.workers={workers} needs as many GPUs, this Ray has {have.get('GPU', 0):.0f}; lower it"
        )
    if have.get("CPU", 0) < workers + 1:
        raise UserError(
            f"train.workers={workers} needs {workers} CPUs and one for the data; this Ray has "
            f"{have.get('CPU', 0):.0f}: lower train.workers or add machines"
        )


def _fit(job: TrainJob, workers: int) -> str | None:
    """One worker group from start to end: None, or what went wrong if another attempt may help."""
    ensure_ray(workers + 2)
    import ray.exceptions
    from ray.train import TrainingFailedError
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    storage = Path(job.folder).resolve() / ".ray"
    trainer = TorchTrainer(
        run_in_ray,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if _use_gpu() else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=_use_gpu()),
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
    except ray.exceptions.RayError as error:  # the controller died
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


def _use_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


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
        if stop_file.exists():
            handler: Callable | int = before[number]
            signal.signal(number, handler)
            os.kill(os.getpid(), number)
        print("stopping after this step, with a checkpoint", file=sys.stderr)
        stop_file.touch()

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, request)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop_file.unlink(missing_ok=True)
