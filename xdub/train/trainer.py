"""The training loop, the same for every phase, every world size, with and without Ray."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xdub.errors import UserError
from xdub.train.checkpoint import Checkpoints, Progress
from xdub.train.context import TrainContext
from xdub.train.engine import Engine
from xdub.train.journal import Journal
from xdub.train.meters import GlobalStep, Meters, RankStep, peak_memory
from xdub.train.phases.common import PhaseContext
from xdub.train.records import CommittedSteps

if TYPE_CHECKING:
    from xdub.config import TrainConfig

Batch = dict[str, Any]
Sampler = Callable[[torch.nn.Module, Batch, PhaseContext], np.ndarray]
"""Draws a film strip uint8 [H, W, 3] with the current model; called on every rank (ZeRO-3 needs all of them)."""

STOP_FILE = "stop-requested"
"""Its existence in the phase folder asks all ranks to checkpoint and end."""


@dataclass(kw_only=True)
class Trainer:
    """One rank's share of a phase. ``journal`` and ``committed`` exist on rank 0 only."""

    phase: ModuleType
    loss_context: PhaseContext
    engine: Engine
    context: TrainContext
    train: TrainConfig
    checkpoints: Checkpoints
    folder: Path
    attempt: int
    progress: Progress
    journal: Journal | None = None
    committed: CommittedSteps | None = None
    sampler: Sampler | None = None
    tokens_per_step: int = 0
    _meters: Meters = field(default_factory=Meters)
    _since_log: tuple[float, int] = (0.0, 0)
    _waited: float = 0.0

    def run(self, stream: Iterable[Batch]) -> str:
        """Train on micro batches to ``train.steps``: "finished", or "stopped" after a stop request.

        Both end with a checkpoint. UserError for a loss that is not finite, and for data that end too soon.
        """
        self._meters = Meters(dict(self.progress.meters))
        self._since_log = (time.perf_counter(), self.progress.step)
        for micro_batches, wait in groups(stream, self.engine.micro_batches):
            step = self._accumulate(micro_batches, wait)
            self._refuse_non_finite(step)
            self.engine.step()
            self._commit(step)
            if self._due(self.train.log_every):
                self._log(step)
            if self.sampler is not None and self._due(self.train.sample_every):
                self._draw_sample(micro_batches[0])
            finished = self.progress.step >= self.train.steps
            if finished or step.stop or self._due(self.train.checkpoint_every):
                self._checkpoint()
            if finished or step.stop:
                return "finished" if finished else "stopped"
        raise UserError(
            f"the data ended after step {self.progress.step} of {self.train.steps}; are there enough clips?"
        )

    def _accumulate(self, micro_batches: list[Batch], wait: float) -> GlobalStep:
        """Gradients of the whole global batch, and what all ranks saw."""
        mine = RankStep(data_wait=wait)
        for i, batch in enumerate(micro_batches):
            batch = to_device(batch, self.context.device)
            terms = self.phase.loss(self.engine.model, batch, self.loss_context)
            self.engine.backward(terms.total, last=i == len(micro_batches) - 1)
            mine.add(terms, batch)
        mine.peaks = peak_memory(self.context.device)
        mine.stop = self.context.rank == 0 and (self.folder / STOP_FILE).exists()
        return GlobalStep.merge(self.context.gather(mine))

    def _refuse_non_finite(self, step: GlobalStep) -> None:
        """Before the optimizer sees it: the weights stay as the last checkpoint can reproduce them."""
        if not math.isfinite(step.loss):
            raise UserError(
                f"the loss of step {self.progress.step + 1} is not finite; samples: {', '.join(step.sample_ids)}. "
                "Look at these clips, or lower train.lr, and --resume from the last checkpoint"
            )

    def _commit(self, step: GlobalStep) -> None:
        self.progress = Progress(
            step=self.progress.step + 1,
            cursor=self.progress.cursor + len(step.sample_ids),
            epoch=step.epoch,
        )
        self._meters.add(step.sums | {"train/loss": (step.loss, 1), "grad_norm": (self.engine.grad_norm, 1)})
        self._waited += step.data_wait
        if self.committed is not None:
            self.committed.append(self.progress.step, step.loss, step.sample_ids, self.attempt)

    def _log(self, step: GlobalStep) -> None:
        now, (then, last_step) = time.perf_counter(), self._since_log
        steps = self.progress.step - last_step
        seconds = (now - then) / steps
        values = self._meters.take() | {
            "lr": self.engine.applied_lr,
            "train/epoch": float(step.epoch),
            "perf/step_seconds": seconds,
            "perf/tokens_per_s": self.tokens_per_step / seconds,
            "perf/data_wait": self._waited / (now - then),
            **step.peaks,
        }
        self._since_log, self._waited = (now, self.progress.step), 0.0
        if self.journal is not None:
            self.journal.metrics(self.progress.step, values)

    def _draw_sample(self, batch: Batch) -> None:
        batch = to_device(batch, self.context.device)
        self.engine.model.eval()
        with torch.no_grad(), self.engine.averaged():
            strip = self.sampler(self.engine.model, batch, self.loss_context)
        self.engine.model.train()
        if self.journal is not None:
            path = self.folder / "samples" / f"step{self.progress.step:08d}.png"
            save_png(strip, path)
            self.journal.artifact(path, "samples")

    def _checkpoint(self) -> None:
        if self.committed is not None:
            self.committed.sync()  # the record of a step must not be younger than its checkpoint
        state = Progress(
            step=self.progress.step,
            cursor=self.progress.cursor,
            epoch=self.progress.epoch,
            meters=self._meters.sums,
        )
        self.checkpoints.save(self.engine, state, self.context)
        self.context.report({"step": float(self.progress.step)})

    def _due(self, every: int) -> bool:
        return every > 0 and self.progress.step % every == 0


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch with its tensors on ``device``."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


def save_png(strip: np.ndarray, path: Path) -> None:
    """uint8 RGB [H, W, 3]."""
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    Image.fromarray(strip).save(path)


def groups(stream: Iterable[Batch], size: int) -> Iterator[tuple[list[Batch], float]]:
    """``size`` batches at a time with the seconds we waited for them; a short rest at the end is dropped."""
    iterator = iter(stream)
    while True:
        start = time.perf_counter()
        batches = list(itertools.islice(iterator, size))
        if len(batches) < size:
            return
        yield batches, time.perf_counter() - start
