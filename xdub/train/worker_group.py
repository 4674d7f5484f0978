"""One worker group under Ray Train's controller, which replaces it at once when a worker dies for no fault of ours.

A controller of its own for every attempt cost 8 s on two cores. It is asked to go on only where nothing has to be
decided: what the user has to mend, a smaller cluster and a second failure at the same checkpoint are the supervisor's.

Ray is imported inside the functions, so its classes are extended there, too.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from xdub.config import TrainConfig
from xdub.train.cluster import capacity, choose_workers, use_gpu
from xdub.train.failures import Failures, judge
from xdub.train.trainer import STOP_FILE
from xdub.train.worker import TrainJob, run_in_ray


def fit(job: TrainJob, train: TrainConfig, workers: int, failures: Failures) -> str | None:
    """From start to end: None, or what went wrong if another controller may help.

    RayError when the controller itself was lost; UserError for what the user can mend.
    """
    from ray.train import TrainingFailedError
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig

    gpu, storage = use_gpu(), Path(job.folder).resolve() / ".ray"
    # None: Ray's own choice, a CPU or a GPU for each.
    each = {"GPU" if gpu else "CPU": 1, train.resource: 1} if train.resource is not None else None
    trainer = _trainer_class()(
        run_in_ray,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu, resources_per_worker=each),
        run_config=RunConfig(
            name=f"run{time.time_ns()}",  # Ray would go on with one that has the name of an earlier one
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    trainer.may_replace = lambda error: _may_replace(error, job, train, workers, failures.since)
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return judge(error)
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    return None


def _may_replace(error: Exception, job: TrainJob, train: TrainConfig, workers: int, since: int) -> bool:
    """Called in the controller. What it declines comes to `fit`."""
    from ray.train import WorkerGroupError

    folder = Path(job.folder)
    failures = Failures(folder, since)
    if not isinstance(error, WorkerGroupError) or (folder / STOP_FILE).exists() or failures.in_a_row():
        return False
    if choose_workers(train, capacity(train.resource)) != workers:
        return False
    try:
        failures.note(judge(error))
    except Exception:  # the user's, or a defect: to be told by the driver
        return False
    return True


def _trainer_class() -> Any:
    """Ray's trainer with a function `may_replace` in place of its policy, which counts failures of every kind.

    And with an actor less to wait for.
    """
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
    from ray.train.v2.api.config import FailureConfig
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    class Policy(FailurePolicy):
        def __init__(self, may_replace: Any) -> None:
            super().__init__(FailureConfig())
            self._may_replace = may_replace

        def make_decision(self, training_failed_error: Any) -> Any:
            return (
                FailureDecision.RETRY if self._may_replace(training_failed_error) else FailureDecision.RAISE
            )

    class Trainer(TorchTrainer):
        may_replace: Any

        def _initialize_and_run_controller(self, **arguments: Any) -> Any:
            arguments["failure_policy"] = Policy(self.may_replace)
            return super()._initialize_and_run_controller(**arguments)

        def _create_default_callbacks(self) -> Any:
            # Its actor hands out data sets; ours are streams that the ranks open themselves.
            return [
                each for each in super()._create_default_callbacks() if not isinstance(each, DatasetsCallback)
            ]

    return Trainer
