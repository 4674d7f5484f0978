"""Optimizer engine with ZeRO 0-3, precision, accumulation, clipping and EMA.

All settings of DeepSpeed come from one dict, which `xdub.train.deepspeed_setup` derives from the train section.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from xdub.heap import frozen_heap
from xdub.model.backbone import Backbone
from xdub.model.offload import BlockOffload
from xdub.precision import dtype_of
from xdub.train.deepspeed_setup import build_optimizer, clips_here, deepspeed_config, import_deepspeed
from xdub.train.schedule import lr_at
from xdub.train.state.fragments import (
    MOMENTS,
    find_fragments,
    full_shape,
    load_moment,
    refresh_weights,
    set_adam_step,
)
from xdub.train.state.pieces import ShardedState, write_shard

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

    from xdub.config import TrainConfig


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
        if train.compile:
            model.compile()
        optimizer = build_optimizer(model, train)
        offload = None
        if train.offloads("blocks"):
            assert isinstance(model, Backbone)
            offload = BlockOffload(model.blocks, device, dtype_of(train.precision))
        buffers = {name: value.clone() for name, value in model.named_buffers() if value.is_floating_point()}
        exact = {}
        if train.precision != "fp32":
            exact = {n: p.detach().cpu().flatten() for n, p in model.named_parameters() if p.requires_grad}
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        config = deepspeed_config(train, world_size, trained)
        if device.type == "cpu" and train.zero_stage == 3:
            # DeepSpeed before 0.19.8 gathers the small weights that it keeps whole with a race under gloo: keep none.
            config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        with frozen_heap():  # DeepSpeed collects garbage once per group of parameters
            ds, *_ = deepspeed.initialize(model=model.to(device), optimizer=optimizer, config=config)
        # Only weights become bf16; statistics keep their precision.
        for name, value in ds.module.named_buffers():
            if name in buffers:
                value.data = buffers[name].to(device)
        if offload is not None:
            offload.rest()
        engine = cls(ds, train, rank=rank, world_size=world_size)
        if exact:
            engine._set_masters(exact)
            for f, average in zip(engine._fragments, engine._ema, strict=bool(engine._ema)):
                average.copy_(f.master[f.share])
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
        if clips_here(self._train):
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
            load_moment(self._fragments, key, state.fill)
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
        self._exchange_average()
        try:
            yield
        finally:
            self._exchange_average()

    def _exchange_average(self) -> None:
        """Swap the fp32 weights with their average, one parameter at a time. Collective.

        A second call restores both.
        """
        wholes: Iterable[Tensor | None] = repeat(None)
        if self.world_size > 1 and self._train.zero_stage == 0:
            # Without ZeRO a rank has whole parameters, but only a share of their average.
            wholes = (value for _, value in self._gathered(ema=True))
        for f, average, whole in zip(self._fragments, self._ema, wholes, strict=False):
            own = f.master[f.share].clone()
            if whole is not None:
                f.master.copy_(whole)
            f.master[f.share] = average
            average.copy_(own)
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
