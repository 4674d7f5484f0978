"""One attempt: a worker group of Ray Train from its start to its end.

Ray Train itself never retries (`max_failures=0`). Every failure reaches the supervisor (launch.py), which decides
whether and with how many workers another group starts.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from typing import TYPE_CHECKING

from xdub.train.rank import TrainJob, run_in_ray
from xdub.train.supervise.cluster import per_worker, use_gpu
from xdub.train.supervise.failures import judge, rank_failure

if TYPE_CHECKING:
    from ray.train import FailureConfig
    from ray.train.torch import TorchConfig


def fit(job: TrainJob, workers: int) -> str | None:
    """Run one worker group; return None at its orderly end, or the failure that another attempt may survive.

    Raise RayError when the controller itself was lost, UserError for the user's mistakes, RuntimeError for defects.
    """
    from ray.train import LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    storage = job.folder.ray
    trainer = TorchTrainer(
        run_rank,
        train_loop_config={"job": job},
        torch_config=_torch_config(),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=use_gpu(), resources_per_worker=per_worker(job.train)
        ),
        run_config=RunConfig(
            name=f"run{time.time_ns()}",  # Ray would continue an earlier run of the same name
            storage_path=str(storage),
            failure_config=_never_retry(),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return judge(error)
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    return None


def run_rank(config: dict[str, TrainJob]) -> None:
    """Run one rank: the train function of Ray's TorchTrainer. It raises exceptions as text that `judge` reads."""
    try:
        run_in_ray(config["job"])
    except Exception as error:
        raise rank_failure(error) from None


def _never_retry() -> FailureConfig:
    """Return Ray's settings with every limit of failures at 0; Ray before 2.60 has no limit for reclaimed machines."""
    from ray.train import FailureConfig

    names = {field.name for field in dataclasses.fields(FailureConfig)}
    limits = ("max_failures", "controller_failure_limit", "max_preemption_failures")
    return FailureConfig(**{name: 0 for name in limits if name in names})


def _torch_config() -> TorchConfig:
    """Return Ray's settings for torch without Ray's process group, because that group listens on every address.

    The ranks form their group themselves (`xdub.train.context`).
    """
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig

    class Ranks(Backend):
        share_cuda_visible_devices = True  # NCCL needs to see the GPUs of all ranks of a machine

    class Config(TorchConfig):
        @property
        def backend_cls(self) -> type[Backend]:
            return Ranks

    return Config()
