"""The training loop, the same for every phase, every world size, with and without Ray."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from xdub.config import TrainConfig
from xdub.data.batch import RawBatch, Samples
from xdub.errors import UserError
from xdub.files.run_folder import PhaseFolder
from xdub.train.context import TrainContext
from xdub.train.engine import Engine
from xdub.train.guard import Guard
from xdub.train.meters import GlobalStep, Meters, RankStep, peak_memory
from xdub.train.phases import PhaseLoss
from xdub.train.phases.common import PhaseContext
from xdub.train.records import Records
from xdub.train.state.checkpoint import Checkpoints, Progress

Sampler = Callable[[torch.nn.Module, PhaseContext], np.ndarray]
"""Draws a film strip uint8 [H, W, 3] with the current model; called on every rank (ZeRO-3 needs all of them)."""

OpenStream = Callable[[int, int], Iterable[RawBatch]]
"""(cursor, steps) -> micro batches of this rank that start at ``cursor`` and suffice for ``steps`` steps."""


@dataclass(kw_only=True)
class Trainer:
    """One rank's share of a phase."""

    folder: PhaseFolder
    loss: PhaseLoss
    loss_context: Any
    """Third argument of the loss."""
    engine: Engine
    context: TrainContext
    train: TrainConfig
    checkpoints: Checkpoints
    progress: Progress
    """Position of the run: at the start, the position to continue from."""
    encode: Callable[[RawBatch], Samples]
    """A stream's batch -> the loss's inputs on this rank's device."""
    records: Records
    sampler: Sampler | None = None
    tokens_per_step: int = 0
    busy_seconds: float | None = None
    """Seconds that a step's FLOPs take at the peak of all devices together; None where no peak is known."""
    beat: Callable[[], None] = lambda: None
    """Called after every piece of progress, see `xdub.train.supervise.watchdog`."""
    started: float = field(default_factory=time.time)
    """Start of this run's first attempt, seconds since 1970."""
    _meters: Meters = field(default_factory=Meters)
    _guard: Guard = field(init=False)
    _since_log: tuple[float, int] = (0.0, 0)
    _waited: float = 0.0

    def run(self, open_stream: OpenStream) -> Literal["finished", "stopped"]:
        """Train on micro batches to ``train.steps``, or until a stop is requested; both end with a checkpoint.

        Raise UserError for a run that diverges after every rollback.
        """
        self._continue_from(self.progress)
        while self.progress.step < self.train.steps:
            # After skipped batches a stream ends before the last step.
            stream = open_stream(self.progress.cursor, self.train.steps - self.progress.step)
            if self._run_through(stream):
                return "stopped"
        return "finished"

    def _run_through(self, stream: Iterable[RawBatch]) -> bool:
        """Train until the stream ends; return True after a stop request."""
        for micro_batches, wait in groups(stream, self.engine.micro_batches):
            begin = time.perf_counter() - wait
            step, objection = self._accumulate(micro_batches, wait)
            if not self.engine.step():
                self._skip(step, objection or "the gradient is not finite")
                continue
            self._commit(step, begin)
            finished = self.progress.step >= self.train.steps
            if self._due(self.train.log_every):
                self._log(step)
                self._begin_means()
            elif finished or step.stop:
                # The means continue in the checkpoint, so a resumed run logs what an uninterrupted run logs.
                self._log(step)
            if self.sampler is not None and self._due(self.train.sample_every):
                self._draw_sample(self.sampler)
            if finished or step.stop or self._due(self.train.checkpoint_every):
                self._checkpoint()
            if step.stop and not finished:
                return True
        return False

    def _accumulate(self, micro_batches: list[RawBatch], wait: float) -> tuple[GlobalStep, str | None]:
        """Compute the gradients of the whole global batch; return the merged step and the guard's objection, if any.

        The losses are compared before the last one is differentiated. An objection turns that gradient into NaN, which
        the engine refuses to apply in every ZeRO stage alike.
        """
        rank_step = RankStep(data_wait=wait)
        rank_step.peaks = peak_memory(self.context.device)
        rank_step.stop = self.records.stop_requested()
        for batch in micro_batches[:-1]:
            self.engine.backward(self._loss(batch, rank_step), last=False)
            self.beat()
        loss = self._loss(micro_batches[-1], rank_step)
        step = GlobalStep.merge(self.context.gather(rank_step), self.train.sequence_parallel)
        objection = self._guard.objection(step.loss)
        self.engine.backward(loss if objection is None else loss * math.nan, last=True)
        return step, objection

    def _loss(self, raw: RawBatch, rank_step: RankStep) -> Tensor:
        batch = self.encode(raw)
        terms = self.loss(self.engine.model, batch, self.loss_context)
        rank_step.add(terms, batch)
        return terms.total

    def _commit(self, step: GlobalStep, begin: float) -> None:
        self._guard.accept(step.loss)
        self.progress = Progress(
            step=self.progress.step + 1,
            cursor=self.progress.cursor + len(step.sample_ids),
            epoch=step.epoch,
            useful_seconds=self.progress.useful_seconds + time.perf_counter() - begin,
        )
        self._meters.add(step.sums | {"train/loss": (step.loss, 1), "grad_norm": (self.engine.grad_norm, 1)})
        self._waited += step.data_wait
        self.records.commit(self.progress.step, step)
        self.beat()

    def _skip(self, step: GlobalStep, objection: str) -> None:
        """Advance in the data but not in the weights; after ``train.max_skips`` in a row, roll the weights back."""
        self._guard.skip()
        self.records.skip(self.progress, step, objection)
        self.progress = replace(self.progress, cursor=self.progress.cursor + len(step.sample_ids))
        self.beat()
        if self._guard.skipped_in_a_row >= self.train.max_skips:
            self._roll_back(step, objection)

    def _roll_back(self, step: GlobalStep, objection: str) -> None:
        """Load a checkpoint from before the bad samples and continue with the samples after them."""
        before = self.progress.step
        progress = self.checkpoints.roll_back(
            self.engine, self.context, cursor=self.progress.cursor, most=self.train.max_rollbacks
        )
        if progress is None:
            raise UserError(
                f"training diverges at step {before + 1} ({objection}; samples: {', '.join(step.sample_ids)}) and "
                f"{self.train.max_rollbacks} rollbacks did not help: inspect {self.folder.skipped}, lower "
                "train.lr or raise train.max_rollbacks, then run again with --resume"
            )
        self._continue_from(progress)
        self.records.roll_back(before, progress)
        self.beat()

    def _continue_from(self, progress: Progress) -> None:
        self.progress = progress
        self._meters = Meters(dict(progress.meters))
        self._guard = Guard(self.train.spike_factor, progress.guard)
        self._since_log, self._waited = (time.perf_counter(), progress.step), 0.0

    def _begin_means(self) -> None:
        self._meters.reset()
        self._since_log, self._waited = (time.perf_counter(), self.progress.step), 0.0

    def _log(self, step: GlobalStep) -> None:
        """Log the means since the last multiple of ``train.log_every``."""
        now, (then, last_step) = time.perf_counter(), self._since_log
        steps = self.progress.step - last_step
        seconds = (now - then) / steps
        values = self._meters.means() | {
            "lr": self.engine.applied_lr,
            "train/epoch": float(step.epoch),
            "perf/step_seconds": seconds,
            "perf/tokens_per_s": self.tokens_per_step / seconds,
            "perf/data_wait": self._waited / (now - then),
            **step.peaks,
            "perf/goodput": self.progress.useful_seconds / max(time.time() - self.started, 1e-9),
        }
        if self.busy_seconds is not None:
            values["perf/mfu"] = self.busy_seconds / seconds
        self.records.log(self.progress.step, values)

    def _draw_sample(self, sampler: Sampler) -> None:
        self.engine.model.eval()
        with torch.no_grad(), self.engine.averaged():
            strip = sampler(self.engine.model, self.loss_context)
        self.engine.model.train()
        self.records.sample(self.progress.step, strip)
        self.beat()

    def _checkpoint(self) -> None:
        self.records.sync()
        state = replace(self.progress, meters=self._meters.sums, guard=self._guard.state())
        self.records.checkpoint(self.checkpoints.save(self.engine, state, self.context))
        self.context.report({"step": float(self.progress.step)})
        self.beat()

    def _due(self, every: int) -> bool:
        return every > 0 and self.progress.step % every == 0


def groups(stream: Iterable[RawBatch], size: int) -> Iterator[tuple[list[RawBatch], float]]:
    """Yield ``size`` batches at a time with the seconds spent waiting for them; an incomplete last group is dropped."""
    iterator = iter(stream)
    while True:
        start = time.perf_counter()
        batches = list(itertools.islice(iterator, size))
        if len(batches) < size:
            return
        yield batches, time.perf_counter() - start
