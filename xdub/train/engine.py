"""The optimizer engine: ZeRO 0-3, precision, accumulation, clipping, EMA. The only import of deepspeed.

Everything DeepSpeed is told comes from one dict that :func:`deepspeed_config` derives from the train section.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xdub.errors import UserError
from xdub.train.schedule import lr_at

if TYPE_CHECKING:
    from xdub.config import TrainConfig

TAG = "engine"
EMA_FILE = "ema_rank{rank:05d}.pt"


def accumulation_steps(train: TrainConfig, world_size: int) -> int:
    """Micro batches a rank runs per optimizer step. UserError when global_batch does not divide."""
    per_pass = train.micro_batch * world_size
    if train.global_batch % per_pass:
        raise UserError(
            f"train.global_batch={train.global_batch} is not a multiple of micro_batch x workers = "
            f"{train.micro_batch} x {world_size}; change one of the three"
        )
    return train.global_batch // per_pass


def deepspeed_config(train: TrainConfig, world_size: int) -> dict[str, Any]:
    """The one DeepSpeed dict."""
    if train.zero_stage not in (0, 1, 2, 3):
        raise UserError(f"train.zero_stage={train.zero_stage}: use 0, 1, 2 or 3")
    if train.precision not in ("fp32", "bf16"):
        raise UserError(f"train.precision={train.precision!r}: use 'fp32' or 'bf16'")
    return {
        "train_batch_size": train.global_batch,
        "train_micro_batch_size_per_gpu": train.micro_batch,
        "gradient_accumulation_steps": accumulation_steps(train, world_size),
        "bf16": {"enabled": train.precision == "bf16"},
        "zero_optimization": {"stage": train.zero_stage},
        "gradient_clipping": 0.0 if _plain(train) else float(train.grad_clip),
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


class Engine:
    """A model with its optimizer. ``engine.model`` is what a phase calls; ZeRO-3 gathers weights under that call."""

    def __init__(self, ds: Any, train: TrainConfig, world_size: int) -> None:
        self._ds, self._train = ds, train
        self.world_size = world_size
        self.global_step = 0
        self.grad_norm = float("nan")
        """Norm of the whole gradient before clipping, of the last step."""
        self.applied_lr = 0.0
        """Rate of the last step."""
        self._trained = {name: p for name, p in ds.module.named_parameters() if p.requires_grad}
        self._ema = (
            {name: _local(p).float().clone() for name, p in self._trained.items()} if train.ema else {}
        )

    @classmethod
    def build(cls, model: nn.Module, train: TrainConfig, *, device: torch.device, world_size: int) -> Engine:
        """Wrap ``model``: its parameters with requires_grad are trained. A process group must exist already."""
        deepspeed = _import_deepspeed(device)
        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
        if train.optimizer != "adamw":
            raise UserError(f"train.optimizer={train.optimizer!r}: only 'adamw' is available")
        if train.compile:
            model.compile()
        trained = [p for p in model.parameters() if p.requires_grad]
        decayed, free = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": train.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=train.lr, fused=True)
        buffers = {name: value.clone() for name, value in model.named_buffers()}
        config = deepspeed_config(train, world_size)
        ds, *_ = deepspeed.initialize(model=model.to(device), optimizer=optimizer, config=config)
        for name, value in ds.module.named_buffers():  # bf16 is for weights; statistics keep their precision
            value.data = buffers[name].to(device)
        return cls(ds, train, world_size)

    @property
    def model(self) -> nn.Module:
        return self._ds

    @property
    def micro_batches(self) -> int:
        """Forward and backward passes a rank runs per step."""
        return self._ds.gradient_accumulation_steps()

    @property
    def lr(self) -> float:
        """Rate of the step that comes next."""
        t = self._train
        return lr_at(self.global_step, peak=t.lr, warmup=t.warmup, total=t.steps, schedule=t.lr_schedule)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Gradients of one micro batch; ``last`` marks the one before :meth:`step`, where ranks exchange them."""
        self._ds.set_gradient_accumulation_boundary(last)
        self._ds.backward(loss)

    def step(self) -> None:
        """Clip, AdamW, EMA; gradients are zero afterwards."""
        self.applied_lr = self.lr
        for group in self._ds.optimizer.param_groups:
            group["lr"] = self.applied_lr
        if _plain(self._train):
            limit = self._train.grad_clip or float("inf")
            self.grad_norm = float(nn.utils.clip_grad_norm_(self._trained.values(), limit))
        self._ds.step()
        if not _plain(self._train):
            self.grad_norm = float(self._ds.get_global_grad_norm())
        self.global_step += 1
        decay = min(
            self._train.ema, self.global_step / (self.global_step + 10)
        )  # a young average forgets its start
        for name, average in self._ema.items():
            average.lerp_(_local(self._trained[name]).float(), 1 - decay)

    def save(self, folder: Path, rank: int) -> None:
        """Every rank writes its shard under ``folder``; frozen weights are left out. Collective."""
        self._ds.save_checkpoint(
            str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=self._has_frozen
        )
        if self._ema:
            torch.save(self._ema, folder / EMA_FILE.format(rank=rank))

    def load(self, folder: Path, rank: int, step: int) -> None:
        """Inverse of :meth:`save`, at the same world size and stage. Collective."""
        path, _ = self._ds.load_checkpoint(str(folder), tag=TAG, load_module_strict=not self._has_frozen)
        if path is None:
            raise UserError(f"checkpoint {folder} holds no engine state of rank {rank}")
        self.global_step = step
        if self._ema:
            saved = torch.load(folder / EMA_FILE.format(rank=rank), weights_only=True)
            for name, average in self._ema.items():
                average.copy_(saved[name])

    def buffers(self) -> list[tuple[str, Tensor]]:
        """Persistent buffers that belong to the state dict."""
        saved = self._ds.module.state_dict().keys() if self._train.zero_stage < 3 else None
        return [(name, b) for name, b in self._ds.module.named_buffers() if saved is None or name in saved]

    def trained_state(self, *, ema: bool = True) -> dict[str, Tensor]:
        """fp32 CPU copies of the trained parameters in full (their average when ``train.ema``). Collective."""
        with self.averaged(enabled=ema):
            full = {name: self._full(name, p, ema and bool(self._ema)) for name, p in self._trained.items()}
        return full

    @contextmanager
    def averaged(self, *, enabled: bool = True) -> Generator[None]:
        """Within this context the model computes with its averaged weights (for samples and export)."""
        if not (enabled and self._ema):
            yield
            return
        kept = {name: _local(p).clone() for name, p in self._trained.items()}
        self._put(self._ema)
        try:
            yield
        finally:
            self._put(kept)

    @property
    def _has_frozen(self) -> bool:
        return any(not p.requires_grad for p in self._ds.module.parameters())

    def _put(self, values: dict[str, Tensor]) -> None:
        for name, p in self._trained.items():
            _local(p).copy_(values[name])

    def _full(self, name: str, p: nn.Parameter, averaged: bool) -> Tensor:
        from deepspeed.runtime.zero import GatheredParameters
        from deepspeed.utils import safe_get_full_fp32_param

        if not averaged and not _plain(self._train):  # the fp32 master, not its bf16 copy
            master = safe_get_full_fp32_param(p)
            if master is not None:
                return master.detach().float().cpu().clone()
        if not averaged or hasattr(p, "ds_tensor"):
            with GatheredParameters([p], enabled=hasattr(p, "ds_tensor")):
                return p.detach().float().cpu().clone()
        return self._ema[name].cpu().clone()


def _plain(train: TrainConfig) -> bool:
    """Stage 0 in fp32: DeepSpeed only averages gradients, and reports no norm; we clip."""
    return train.zero_stage == 0 and train.precision == "fp32"


def _local(p: nn.Parameter) -> Tensor:
    """What this rank holds of a parameter: its ZeRO-3 shard, else all of it."""
    return getattr(p, "ds_tensor", p).data


def _import_deepspeed(device: torch.device) -> Any:
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    # None of its compiled ops is used. Unless told so, it probes for all of them with the compiler (seconds, and noise
    # on stderr), and on a CPU builds deepspeed_shm_comm for 45 s where plain gloo does the same.
    deepspeed.ops.__compatible_ops__ = dict.fromkeys([*ALL_OPS, "deepspeed_not_implemented"], False)
    deepspeed.utils.logging.logger.setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    return deepspeed
