"""Settings of DeepSpeed, its import, and the optimizer that it wraps. Only this file and the engine name deepspeed."""

from __future__ import annotations

import logging
import os
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from xdub.errors import UserError
from xdub.plan.memory import BUCKET
from xdub.precision import dtype_of
from xdub.train.adamw8bit import AdamW8bit

if TYPE_CHECKING:
    from deepspeed.ops.op_builder.builder import OpBuilder

    from xdub.config import TrainConfig


def deepspeed_config(train: TrainConfig, world_size: int, trained: int = BUCKET) -> dict[str, Any]:
    """Return DeepSpeed's settings for ``world_size`` ranks that train ``trained`` parameters.

    DeepSpeed counts the samples of all ranks, so its batch counts a sample once for each rank that shares it. Its mean
    over ranks is the mean over samples, because ranks that share a sample add up the gradient of their losses.

    Raise UserError for a stage or precision that does not exist.
    """
    if train.zero_stage not in (0, 1, 2, 3):
        raise UserError(f"train.zero_stage={train.zero_stage}: use 0, 1, 2 or 3")
    half = dtype_of(train.precision) is torch.bfloat16
    micro_batch = train.micro_batch_of(world_size)
    zero: dict[str, Any] = {"stage": train.zero_stage}
    if train.zero_stage in (1, 2):
        # The buffer is allocated whole, and a small adapter does not need a gigabyte.
        zero["reduce_bucket_size"] = min(BUCKET, trained)
    accumulated = train.global_batch // (micro_batch * train.groups_of(world_size))
    config: dict[str, Any] = {
        "train_batch_size": train.global_batch * train.sequence_parallel,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulated,
        "bf16": {"enabled": half},
        "zero_optimization": zero,
        "gradient_clipping": 0.0 if clips_here(train) else float(train.grad_clip),
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
        # DeepSpeed lists the classes that it has tested. AdamW8bit updates flat pieces independently, as ZeRO requires.
        "zero_allow_untested_optimizer": train.optimizer != "adamw",
    }
    if train.offloads("optimizer"):
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        # DeepSpeed's own CPU optimizer is compiled at run time; that of torch is as exact, and is there already.
        config["zero_force_ds_cpu_optimizer"] = False
    if half and train.zero_stage >= 2:
        # Sum micro batches in fp32: in bf16, the eighth of them would lose its last three bits.
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def build_optimizer(model: nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW of the trained parameters; vectors have no weight decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed, free = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": train.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if train.optimizer == "adamw8bit":
        return AdamW8bit(groups, lr=train.lr)
    return torch.optim.AdamW(groups, lr=train.lr, fused=True)


def clips_here(train: TrainConfig) -> bool:
    """Return True for stage 0 in fp32, where DeepSpeed only averages gradients and reports no norm."""
    return train.zero_stage == 0 and train.precision == "fp32"


def import_deepspeed(device: torch.device) -> ModuleType:
    """Return the package, quiet, and on a CPU without the one extension that it would compile."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    if device.type == "cpu":
        _compile_nothing()
    deepspeed.utils.logger.setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    return deepspeed


def _compile_nothing() -> None:
    """Keep DeepSpeed from compiling its collectives over shared memory, which takes a minute.

    Plain gloo does the same.
    """
    from deepspeed.accelerator import set_accelerator
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    class Accelerator(CPU_Accelerator):
        def create_op_builder(self, op_name: str) -> OpBuilder | None:
            return None if op_name == "ShareMemCommBuilder" else super().create_op_builder(op_name)

    set_accelerator(Accelerator())
