"""The training loop, the same for every phase, every world size, with and without Ray."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xdub.data.quarantine import Quarantine
from xdub.errors import UserError
from xdub.tracking.journal import Journal
from xdub.train.context import TrainContext
from xdub.train.engine import Engine
from xdub.train.guard import Guard
from xdub.train.meters import GlobalStep, Meters, RankStep, peak_memory
from xdub.train.phases.common import PhaseContext
from xdub.train.remote.upload import Uploads
from xdub.train.state.checkpoint import Checkpoints, Progress
from xdub.train.state.records import SKIPPED, CommittedSteps, SkippedBatches

if TYPE_CHECKING:
    from xdub.config import TrainConfig

Batch = dict[str, Any]
Sampler = Callable[[torch.nn.Module, PhaseContext], np.ndarray]
"""Draws a film strip uint8 [H, W, 3] with the current model; called on every rank (ZeRO-3 needs all of them)."""

STOP_FILE = "stop-requested"
"""Its existence in the phase folder asks all ranks to checkpoint and end; it says why."""


OpenStream = Callable[[int, int], Iterable[Batch]]
"""(cursor, steps) -> the micro batches of this rank from a position on, for so many steps."""


@dataclass(kw_only=True)
class Trainer:
    """One rank's share of a phase. Records, journal and uploads exist on rank 0 only."""

    phase: ModuleType
    loss_context: PhaseContext
    engine: Engine
    context: TrainContext
    train: TrainConfig
    checkpoints: Checkpoints
    folder: Path
    attempt: int
    progress: Progress
    encode: Callable[[Batch], Batch]
    """A stream's batch -> the same on this rank's device, with latents and audio features."""
    journal: Journal | None = None
    committed: CommittedSteps | None = None
    skipped: SkippedBatches | None = None
    quarantine: Quarantine | None = None
    uploads: Uploads | None = None
    sampler: Sampler | None = None
    tokens_per_step: int = 0
    busy_seconds: float | None = None
    """What a step's FLOPs would take at the peak of all devices together; None where no peak is known."""
    beat: Callable[[], None] = lambda: None
    """Called whenever something was achieved, see `xdub.train.supervise.watchdog`."""
    begun: float = field(default_factory=time.time)
    """When the first attempt of this run started, seconds since 1970."""
    _meters: Meters = field(default_factory=Meters)
    _guard: Guard = field(init=False)
    _since_log: tuple[float, int] = (0.0, 0)
    _waited: float = 0.0

    def run(self, open_stream: OpenStream) -> str:
        """Train on micro batches to ``train.steps``: "finished", or "stopped" after a stop request.

        Both end with a checkpoint. UserError for a run that diverges again and again.
        """
        self._continue_from(self.progress)
        while self.progress.step < self.train.steps:
            # Batches that are skipped leave steps to do when the stream has ended.
            stream = open_stream(self.progress.cursor, self.train.steps - self.progress.step)
            if self._run_through(stream):
                return "stopped"
        return "finished"

    def _run_through(self, stream: Iterable[Batch]) -> bool:
        """Steps until the stream ends: True when a stop was asked for."""
        for micro_batches, wait in groups(stream, self.engine.micro_batches):
            begin = time.perf_counter() - wait
            step, objection = self._accumulate(micro_batches, wait)
            if not self.engine.step():
                self._skip(step, objection or "the gradient is not finite")
                continue
            self._commit(step, begin)
            if self._due(self.train.log_every):
                self._log(step)
            if self.sampler is not None and self._due(self.train.sample_every):
                self._draw_sample()
            finished = self.progress.step >= self.train.steps
            if finished or step.stop or self._due(self.train.checkpoint_every):
                self._checkpoint()
            if step.stop and not finished:
                return True
        return False

    def _accumulate(self, micro_batches: list[Batch], wait: float) -> tuple[GlobalStep, str | None]:
        """Gradients of the whole global batch, what all ranks saw, and the guard's objection if it has one.

        The losses are compared before the last of them is differentiated: an objection makes that gradient not a
        number, which the engine then refuses to apply, in every ZeRO stage alike.
        """
        mine = RankStep(data_wait=wait)
        mine.peaks = peak_memory(self.context.device)
        mine.stop = self.context.rank == 0 and (self.folder / STOP_FILE).exists()
        for batch in micro_batches[:-1]:
            self.engine.backward(self._loss(batch, mine), last=False)
        loss = self._loss(micro_batches[-1], mine)
        step = GlobalStep.merge(self.context.gather(mine))
        objection = self._guard.objection(step.loss)
        self.engine.backward(loss if objection is None else loss * math.nan, last=True)
        return step, objection

    def _loss(self, batch: Batch, mine: RankStep) -> Tensor:
        batch = self.encode(batch)
        terms = self.phase.loss(self.engine.model, batch, self.loss_context)
        mine.add(terms, batch)
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
        if self.committed is not None:
            self.committed.append(self.progress.step, step.loss, step.sample_ids, self.attempt)
        if self.quarantine is not None:
            self.quarantine.note(step.bad, self.progress.step)
        self.beat()

    def _skip(self, step: GlobalStep, objection: str) -> None:
        """The data move on, the weights do not; too often in a row, and the weights go back."""
        self._guard.skip()
        if self.skipped is not None:
            self.skipped.append(
                step=self.progress.step + 1,
                cursor=self.progress.cursor,
                objection=objection,
                loss=step.loss,
                sample_ids=step.sample_ids,
                attempt=self.attempt,
            )
            print(
                f"skipped a batch before step {self.progress.step + 1}: {objection}; its samples are in "
                f"{self.skipped.path}",
                file=sys.stderr,
            )
        self.progress = replace(self.progress, cursor=self.progress.cursor + len(step.sample_ids))
        self.beat()
        if self._guard.skipped_in_a_row >= self.train.max_skips:
            self._roll_back(step, objection)

    def _roll_back(self, step: GlobalStep, objection: str) -> None:
        """To a checkpoint before the trouble, and on with the samples behind it."""
        where = self.progress.step
        progress = self.checkpoints.roll_back(
            self.engine, self.context, cursor=self.progress.cursor, most=self.train.max_rollbacks
        )
        if progress is None:
            raise UserError(
                f"training diverges at step {where + 1} ({objection}; samples: {', '.join(step.sample_ids)}) and going "
                f"back {self.train.max_rollbacks} times did not help: look at {self.folder / SKIPPED}, lower train.lr, "
                "or raise train.max_rollbacks, and --resume"
            )
        self._continue_from(progress)
        if self.committed is not None:
            self.committed.rewind(progress.step)
            print(f"went back from step {where} to {progress.step}, past the bad samples", file=sys.stderr)
        if self.journal is not None:
            self.journal.last_step = progress.step
        self.beat()

    def _continue_from(self, progress: Progress) -> None:
        self.progress = progress
        self._meters = Meters(dict(progress.meters))
        self._guard = Guard(self.train.spike_factor, progress.guard)
        self._since_log, self._waited = (time.perf_counter(), progress.step), 0.0

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
            "perf/goodput": self.progress.useful_seconds / max(time.time() - self.begun, 1e-9),
        }
        if self.busy_seconds is not None:
            values["perf/mfu"] = self.busy_seconds / seconds
        if self.uploads is not None:
            values["perf/upload_lag_seconds"] = self.uploads.lag
        self._since_log, self._waited = (now, self.progress.step), 0.0
        if self.journal is not None:
            self.journal.metrics(self.progress.step, values)

    def _draw_sample(self) -> None:
        self.engine.model.eval()
        with torch.no_grad(), self.engine.averaged():
            strip = self.sampler(self.engine.model, self.loss_context)
        self.engine.model.train()
        if self.journal is not None:
            path = self.folder / "samples" / f"step{self.progress.step:08d}.png"
            save_png(strip, path)
            self.journal.artifact(path, "samples")

    def _checkpoint(self) -> None:
        if self.committed is not None:
            self.committed.sync()  # the record of a step must not be younger than its checkpoint
        state = replace(self.progress, meters=self._meters.sums, guard=self._guard.state())
        folder = self.checkpoints.save(self.engine, state, self.context)
        if self.uploads is not None:
            self.uploads.checkpoint(folder)
        self.context.report({"step": float(self.progress.step)})
        self.beat()

    def _due(self, every: int) -> bool:
        return every > 0 and self.progress.step % every == 0


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
