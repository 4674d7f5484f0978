"""Records of a running phase: rank 0 keeps them; on the other ranks every call does nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from xdub.data.quarantine import Quarantine
from xdub.files.atomic import write_json
from xdub.files.run_folder import PhaseFolder
from xdub.tracking.journal import Journal
from xdub.train.meters import GlobalStep
from xdub.train.remote.upload import Uploads
from xdub.train.state.checkpoint import Progress
from xdub.train.state.committed_steps import CommittedSteps, SkippedBatches

UPLOAD_SECONDS = 60.0
"""Longest wait for the last upload at the end of an attempt."""


class Records:
    """Records of a rank that keeps none."""

    def stop_requested(self) -> bool:
        """Return whether the run must checkpoint and end after this step."""
        return False

    def commit(self, step: int, merged: GlobalStep) -> None:
        """Record an applied optimizer step, counted from 1."""

    def skip(self, progress: Progress, merged: GlobalStep, objection: str) -> None:
        """Record a batch that the step after ``progress`` did not learn from."""

    def roll_back(self, step: int, progress: Progress) -> None:
        """Discard the steps between ``progress`` and ``step``."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Send metrics to the tracker."""

    def evaluate(self, step: int, values: dict[str, float]) -> None:
        """Send metrics that were measured with the weights of a step."""

    def sample(self, step: int, strip: np.ndarray) -> None:
        """Write a film strip, uint8 [H, W, 3], and send it to the tracker."""

    def sync(self) -> None:
        """Flush the committed steps to the disk: no checkpoint may exist without the record of its last step."""

    def checkpoint(self, folder: Path) -> None:
        """Start the upload of a checkpoint."""

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result of a finished phase and start the upload of its weights."""

    def close(self) -> None:
        """Wait for the uploads, at most `UPLOAD_SECONDS`, and close all files."""


class RunRecords(Records):
    """Records of rank 0, in the files of a phase's folder and, if ``uploads`` is set, in its remote copy."""

    def __init__(
        self, folder: PhaseFolder, progress: Progress, *, attempt: int, uploads: Uploads | None
    ) -> None:
        """Continue after ``progress``: later lines belong to steps that were lost and will be run again."""
        self._folder, self._attempt, self._uploads = folder, attempt, uploads
        self._skipped = SkippedBatches(folder.skipped, resume_at=progress.cursor)
        self._committed = CommittedSteps(folder.steps, resume_at=progress.step)
        self._journal = Journal(folder)
        self._quarantine = Quarantine(folder.quarantine)
        if uploads is not None:
            # An earlier attempt may have ended before it sent its last checkpoint.
            uploads.start()
            if progress.step:
                uploads.checkpoint(folder.checkpoint(progress.step))

    def tags(self, values: dict[str, str]) -> None:
        """Send facts about the attempt to the tracker."""
        self._journal.tags(values)

    def stop_requested(self) -> bool:
        """Return whether the stop file exists."""
        return self._folder.stop_request.exists()

    def commit(self, step: int, merged: GlobalStep) -> None:
        """Append to the committed steps, and the new bad clips to the quarantine."""
        self._committed.append(step, merged.loss, merged.sample_ids, self._attempt)
        self._quarantine.note(merged.bad, step)

    def skip(self, progress: Progress, merged: GlobalStep, objection: str) -> None:
        """Append to the skipped batches and print a line."""
        self._skipped.append(
            step=progress.step + 1,
            cursor=progress.cursor,
            objection=objection,
            loss=merged.loss,
            sample_ids=merged.sample_ids,
            attempt=self._attempt,
        )
        print(
            f"skipped a batch before step {progress.step + 1}: {objection}; its samples are in "
            f"{self._skipped.path}",
            file=sys.stderr,
        )

    def roll_back(self, step: int, progress: Progress) -> None:
        """Cut the committed steps, and let the journal accept their metrics again."""
        self._committed.rewind(progress.step)
        self._journal.last_step = progress.step
        print(
            f"rolled back from step {step} to checkpoint {progress.step}; skipping the bad samples",
            file=sys.stderr,
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        """Append to the journal, with the lag of the uploads."""
        if self._uploads is not None:
            values = values | {"perf/upload_lag_seconds": self._uploads.lag}
        self._journal.metrics(step, values)

    def evaluate(self, step: int, values: dict[str, float]) -> None:
        """Append to the journal."""
        if values:
            self._journal.evaluation(step, values)

    def sample(self, step: int, strip: np.ndarray) -> None:
        """Write the strip below `samples` and append it to the journal."""
        path = self._folder.sample(step)
        save_png(strip, path)
        self._journal.artifact(path, self._folder.samples.name)

    def sync(self) -> None:
        """Wait until the committed steps survive a power cut."""
        self._committed.sync()

    def checkpoint(self, folder: Path) -> None:
        """Enqueue the checkpoint for upload."""
        if self._uploads is not None:
            self._uploads.checkpoint(folder)

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result, then enqueue the weights, because the result is uploaded with them."""
        write_json(self._folder.result, result)
        if self._uploads is not None:
            self._uploads.export(self._folder.export)

    def close(self) -> None:
        """Report uploads that were not done in time, and close the files."""
        if self._uploads is not None and (undone := self._uploads.close(UPLOAD_SECONDS)):
            print(f"{undone}; --resume sends the rest", file=sys.stderr)
        for file in (self._journal, self._committed, self._skipped):
            file.close()


def save_png(strip: np.ndarray, path: Path) -> None:
    """Write a picture, uint8 RGB [H, W, 3], as PNG."""
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    Image.fromarray(strip).save(path)
