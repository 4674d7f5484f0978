"""Optimizer engine with ZeRO 0-3, precision, accumulation, clipping and EMA. No other module imports deepspeed.

All settings of DeepSpeed come from one dict, which :func:`deepspeed_config` derives from the train section.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from xdub.errors import UserError
from xdub.precision import dtype_of
from xdub.train.schedule import lr_at
from xdub.train.state.fragments import MOMENTS, find_fragments, full_shape, refresh_weights, set_adam_step
from xdub.train.state.pieces import ShardedState, write_shard

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine
    from deepspeed.ops.op_builder.builder import OpBuilder

    from xdub.config import TrainConfig


def deepspeed_config(train: TrainConfig, world_size: int) -> dict[str, Any]:
    """Return DeepSpeed's settings for ``world_size`` ranks.

    Raise UserError for a stage or precision that does not exist.
    """
    if train.zero_stage not in (0, 1, 2, 3):
        raise UserError(f"train.zero_stage={train.zero_stage}: use 0, 1, 2 or 3")
    half = dtype_of(train.precision) is torch.bfloat16
    micro_batch = train.micro_batch_of(world_size)
    config: dict[str, Any] = {
        "train_batch_size": train.global_batch,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": train.global_batch // (micro_batch * world_size),
        "bf16": {"enabled": half},
        "zero_optimization": {"stage": train.zero_stage},
        "gradient_clipping": 0.0 if _clips_here(train) else float(train.grad_clip),
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    if half and train.zero_stage >= 2:
        # Sum micro batches in fp32: in bf16, the eighth of them would lose its last three bits.
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


class Engine:
    """A model with its optimizer. A phase calls ``engine.model``, and ZeRO-3 gathers weights under that call."""

    def __init__(self, ds: DeepSpeedEngine, train: TrainConfig, *, rank: int, world_size: int) -> None:
        assert ds.optimizer is not None
        self._ds, self._optimizer, self._train = ds, ds.optimizer, train
        self.rank, self.world_size = rank, world_size
        self.global_step = 0
        """Number of applied optimizer steps."""
        self.grad_norm = float("nan")
        """Norm of the whole gradient of the last step, before clipping."""
        self.applied_lr = 0.0
        """Learning rate of the last step."""
        self._trained = {name: p for name, p in ds.module.named_parameters() if p.requires_grad}
        self._fragments = find_fragments(ds, self._trained, rank, world_size)
        set_adam_step(self._fragments, 0)  # DeepSpeed counts a trial step with zero gradients
        # Each rank keeps a share of the average, as of the optimizer's states: 4 bytes a parameter over all ranks.
        self._ema = [f.master[f.share].clone() for f in self._fragments] if train.ema else []

    @classmethod
    def build(
        cls, model: nn.Module, train: TrainConfig, *, device: torch.device, rank: int = 0, world_size: int = 1
    ) -> Engine:
        """Wrap ``model``, whose parameters with requires_grad are trained. A process group must exist already."""
        deepspeed = import_deepspeed(device)
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
        buffers = {name: value.clone() for name, value in model.named_buffers() if value.is_floating_point()}
        exact = {}
        if train.precision != "fp32":
            exact = {n: p.detach().cpu().flatten() for n, p in model.named_parameters() if p.requires_grad}
        config = deepspeed_config(train, world_size)
        if device.type == "cpu" and train.zero_stage == 3:
            # DeepSpeed before 0.19.8 gathers the small weights that it keeps whole with a race under gloo: keep none.
            config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        ds, *_ = deepspeed.initialize(model=model.to(device), optimizer=optimizer, config=config)
        # Only weights become bf16; statistics keep their precision.
        for name, value in ds.module.named_buffers():
            if name in buffers:
                value.data = buffers[name].to(device)
        engine = cls(ds, train, rank=rank, world_size=world_size)
        if exact:
            engine._set_masters(exact)
        return engine

    @property
    def model(self) -> nn.Module:
        """The model to call."""
        return self._ds

    @property
    def micro_batches(self) -> int:
        """Number of forward and backward passes that a rank runs per step."""
        return self._ds.gradient_accumulation_steps()

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        t = self._train
        return lr_at(self.global_step, peak=t.lr, warmup=t.warmup, total=t.steps, schedule=t.lr_schedule)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of one micro batch. ``last``: ranks exchange gradients now, before :meth:`step`."""
        self._ds.set_gradient_accumulation_boundary(last)
        self._ds.backward(loss)

    def step(self) -> bool:
        """Clip, apply AdamW, update the EMA, and set gradients to zero.

        Return False, with unchanged weights, if a gradient was not finite.
        """
        self.applied_lr = self.lr
        for group in self._optimizer.param_groups:
            group["lr"] = self.applied_lr
        if _clips_here(self._train):
            limit = self._train.grad_clip or float("inf")
            self.grad_norm = float(nn.utils.clip_grad_norm_(self._trained.values(), limit))
            if not math.isfinite(self.grad_norm):
                self._optimizer.zero_grad()
                return False
            self._ds.step()
        else:
            self._ds.step()
            norm = self._ds.get_global_grad_norm()
            self.grad_norm = float("nan") if norm is None else float(norm)
            if not self._ds.was_step_applied():  # the same on all ranks
                return False
        self.global_step += 1
        if self._ema:
            # A young average has a smaller decay, so that it forgets its start.
            decay = min(self._train.ema, self.global_step / (self.global_step + 10))
            for f, average in zip(self._fragments, self._ema, strict=True):
                average.lerp_(f.master[f.share], 1 - decay)
        return True

    def save(self, folder: Path) -> None:
        """Write this rank's share of trained weights, moments and average (see `state.pieces`)."""
        pieces = {"master": {f.name: f.master[f.share] for f in self._fragments}}
        for key in MOMENTS:
            pieces[key] = {f.name: f.moment(key)[f.share] for f in self._fragments}
        if self._ema:
            pieces["ema"] = {f.name: average for f, average in zip(self._fragments, self._ema, strict=True)}
        write_shard(folder, self.rank, pieces, {f.name: f.share_start for f in self._fragments})

    def load(self, folder: Path, step: int) -> None:
        """Read the state that :meth:`save` wrote at any world size and stage. Collective."""
        state = ShardedState(folder)
        for f in self._fragments:
            state.fill(f.master, "master", f.name, f.start)
            for key in MOMENTS:
                state.fill(f.moment(key), key, f.name, f.start)
        for f, average in zip(self._fragments, self._ema, strict=bool(self._ema)):
            state.fill(average, "ema", f.name, f.share_start)
        set_adam_step(self._fragments, step)
        refresh_weights(self._ds, self._trained, self._fragments)
        self.global_step = step

    def buffers(self) -> list[tuple[str, Tensor]]:
        """Return the persistent buffers, those of the state dict."""
        saved = self._ds.module.state_dict().keys() if self._train.zero_stage < 3 else None
        return [(name, b) for name, b in self._ds.module.named_buffers() if saved is None or name in saved]

    def trained_state(self, *, ema: bool = True) -> dict[str, Tensor]:
        """Return the trained parameters (or their average), fp32, on rank 0's CPU; {} on other ranks. Collective."""
        full = {}
        for name, value in self._gathered(ema=ema and bool(self._ema)):
            if self.rank == 0:
                full[name] = value.cpu().view(full_shape(self._trained[name]))
        return full

    @contextmanager
    def averaged(self, *, enabled: bool = True) -> Generator[None]:
        """Let the model compute with its averaged weights within this context. Collective."""
        if not (enabled and self._ema):
            yield
            return
        masters = [f.master.clone() for f in self._fragments]
        self._set_masters(dict(self._gathered(ema=True)))
        try:
            yield
        finally:
            for f, value in zip(self._fragments, masters, strict=True):
                f.master.copy_(value)
            refresh_weights(self._ds, self._trained, self._fragments)

    def _set_masters(self, values: Mapping[str, Tensor]) -> None:
        """Set the fp32 weights. ``values``: name -> the whole parameter, flat."""
        for f in self._fragments:
            f.master.copy_(values[f.name][f.start : f.start + f.master.numel()])
        refresh_weights(self._ds, self._trained, self._fragments)

    def _gathered(self, *, ema: bool) -> Iterator[tuple[str, Tensor]]:
        """Yield every trained parameter (or its average), whole, flat, fp32. Collective: each rank adds its share."""
        values = self._ema if ema else [f.master[f.share] for f in self._fragments]
        shares = {f.name: (f.share_start, value) for f, value in zip(self._fragments, values, strict=True)}
        device = self._ds.device
        for name, p in self._trained.items():
            whole = torch.zeros(math.prod(full_shape(p)), device=device)
            if name in shares:
                start, value = shares[name]
                whole[start : start + value.numel()] = value
            if self.world_size > 1:
                dist.all_reduce(whole)  # the shares do not overlap: all but one term are zero
            yield name, whole


def _clips_here(train: TrainConfig) -> bool:
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
