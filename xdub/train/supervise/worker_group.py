"""One worker group under Ray Train's controller, which replaces it at once when a worker dies for no fault of ours.

A controller of its own for every attempt cost 8 s on two cores. It is asked to go on only where nothing has to be
decided: what the user has to mend, a smaller cluster and a second failure at the same checkpoint are the supervisor's.

Ray is imported inside the functions, so its classes are extended there, too.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from xdub.config import TrainConfig
from xdub.train.rank import TrainJob, run_in_ray
from xdub.train.supervise.cluster import capacity, choose_workers, per_worker, use_gpu
from xdub.train.supervise.failures import Failures, judge
from xdub.train.supervise.spares import RANK_ENVIRONMENT
from xdub.train.trainer import STOP_FILE

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


def fit(job: TrainJob, train: TrainConfig, workers: int, failures: Failures) -> str | None:
    """From start to end: None, or what went wrong if another controller may help.

    RayError when the controller itself was lost; UserError for what the user can mend.
    """
    from ray.train import TrainingFailedError
    from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig

    gpu, storage = use_gpu(), Path(job.folder).resolve() / ".ray"
    trainer = _trainer_class()(
        run_in_ray,
        train_loop_config={"job": job},
        torch_config=_torch_config("nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=gpu, resources_per_worker=per_worker(train)
        ),
        run_config=RunConfig(
            name=f"run{time.time_ns()}",  # Ray would go on with one that has the name of an earlier one
            storage_path=str(storage),
            worker_runtime_env={"env_vars": RANK_ENVIRONMENT},
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
    if choose_workers(train, capacity(train)) != workers:
        return False
    try:
        failures.note(judge(error))
    except Exception:  # the user's, or a defect: to be told by the driver
        return False
    return True


def _trainer_class() -> Any:
    """Ray's trainer with a function `may_replace` in place of its policy, which counts failures of every kind.

    And with two actors less to wait for.
    """
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
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
            # One hands out data sets; ours are streams that the ranks open themselves. The other frees the places of
            # a lost controller's workers, but asks Ray's dashboard for it, which may not run; our supervisor does it.
            unused = (DatasetsCallback, PlacementGroupCleanerCallback)
            return [each for each in super()._create_default_callbacks() if not isinstance(each, unused)]

    return Trainer


def _torch_config(backend: str) -> Any:
    """Ray's, but ranks of one machine meet in a file and talk over loopback: torch's store listens to everyone."""
    import ray
    from ray.train.torch import config

    class Backend(config._TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            nodes = worker_group.execute(lambda: ray.get_runtime_context().get_node_id())
            if len(set(nodes)) > 1:
                super().on_start(worker_group, backend_config)
                return
            self._meeting = worker_group.execute_single(0, _meeting_folder)
            worker_group.execute(config._set_torch_distributed_env_vars)
            worker_group.execute(_prefer_loopback)
            joined = [
                worker_group.execute_single_async(
                    rank,
                    config._setup_torch_process_group,
                    backend=backend,
                    world_rank=rank,
                    world_size=len(worker_group),
                    init_method=f"file://{self._meeting}/ranks",
                    timeout_s=backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
            ray.get(joined)

        def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
            super().on_shutdown(worker_group, backend_config)
            if meeting := getattr(self, "_meeting", None):
                worker_group.execute_single(0, shutil.rmtree, meeting, ignore_errors=True)

    class TorchConfig(config.TorchConfig):
        @property
        def backend_cls(self) -> Any:
            return Backend

    return TorchConfig(backend=backend)


def _meeting_folder() -> str:
    """In Ray's session folder: a group that is killed leaves it behind."""
    import ray

    return tempfile.mkdtemp(
        prefix="xdub-ranks-", dir=ray._private.worker.global_worker.node.get_session_dir_path()
    )


def _prefer_loopback() -> None:
    if Path("/sys/class/net/lo").exists():
        for name, value in LOOPBACK.items():
            os.environ.setdefault(name, value)
