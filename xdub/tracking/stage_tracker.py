"""The driver's side of tracking: the first and last records of a stage, and the threads that send its journal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from xdub.data.manifest import read_manifest
from xdub.files.atomic import write_json, write_text
from xdub.files.run_folder import RunFolder, StageFolder
from xdub.files.storage import Location
from xdub.tracking.journal import LANES, Journal, Shipper, pending_bytes
from xdub.tracking.provenance import code_version, data_summary
from xdub.tracking.sink import MlflowSink

OPEN_SECONDS, FLUSH_SECONDS = 30.0, 60.0
"""Longest wait at a stage's start and end.

A server that refuses, or does not answer a call within its time-out, ends the wait at once; these limits are for a
locked database or an overloaded machine."""


class StageTracker:
    """Sender of a stage's journal in this process. The stage also runs while the tracker is down."""

    def __init__(self, run: RunFolder, name: str, folder: StageFolder) -> None:
        """Track ``folder`` as the run ``name`` below the run of ``run``, which keeps the ids."""
        self._folder, self._name = folder, name
        self._sink = MlflowSink(run, name)
        self._shippers: list[Shipper] = []

    def begin(
        self,
        recipe: dict[str, Any],
        recipe_text: str,
        data: Sequence[str | Path | Location],
        facts: Mapping[str, Any],
    ) -> None:
        """Journal recipe, code and data of the stage, and start to send. Call it before workers write records.

        ``facts``: params besides the recipe's.
        """
        folder, manifests, code = self._folder, [read_manifest(each) for each in data], code_version()
        write_text(folder.recipe_text, recipe_text)
        write_json(folder.data_summary, [data_summary(m) for m in manifests])
        described = {
            "rows": sum(len(m.ids) for m in manifests),
            "folders": [str(m.folder) for m in manifests],
            "digest": [m.digest for m in manifests],
        }
        journal = Journal(folder)
        journal.status("RUNNING")
        journal.params(recipe | {"phase": self._name, "code": code, "data": described} | dict(facts))
        journal.params(recipe | {"code": code}, to="parent")
        if "commit" in code:
            # MLflow's own pages show these as the source.
            tags = {"mlflow.source.git.commit": code["commit"], "mlflow.source.name": f"xdub {self._name}"}
            journal.tags(tags | {"code.dirty": str(code["dirty"]).lower()})
        journal.artifact(folder.recipe_text, "config")
        journal.artifact(folder.data_summary, "data")
        journal.artifact(folder.recipe_text, "config", to="parent")
        journal.close()
        self._start()
        numbers = self._shippers[0]
        numbers.tried.wait(OPEN_SECONDS)
        if numbers.last_error or not numbers.tried.is_set():
            reason = _line(numbers.last_error or f"no answer within {OPEN_SECONDS:g} s")
            print(f"tracking is not reachable ({reason}): metrics wait in {folder.journal}", file=sys.stderr)

    def end(
        self,
        status: Literal["FINISHED", "FAILED", "KILLED"],
        *,
        model: dict[str, Any] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """Journal the status, weights for the registry and files, and send the rest. Call it after the workers."""
        journal = Journal(self._folder)
        for path in files:
            journal.artifact(path, "results")
        if model is not None:
            journal.model(**model)
        journal.status(status)
        journal.close()
        self._close()

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Journal and send figures that were measured later, with the weights of ``step``."""
        journal = Journal(self._folder)
        journal.evaluation(step, values)
        journal.close()
        self.send_rest()

    def send_rest(self) -> None:
        """Send records that an earlier process did not send, and all of them to runs that had to be created again."""
        if pending_bytes(self._folder) or self._runs_are_new():
            self._start()
            self._close()

    def _runs_are_new(self) -> bool:
        """Return whether the runs that received the journal are not those that the tracker has now."""
        if not self._folder.journal.is_file():
            return False
        try:
            return pending_bytes(self._folder, self._sink.open()) > 0
        # Everything was sent, so a tracker that does not answer is no matter for this stage.
        except Exception:
            return False

    def _start(self) -> None:
        self._shippers = [Shipper(self._folder, self._sink, lane).start() for lane in LANES]

    def _close(self) -> None:
        deadline = time.monotonic() + FLUSH_SECONDS
        behind = [shipper for shipper in self._shippers if shipper.close(deadline - time.monotonic())]
        if behind:
            reason = _line(behind[0].last_error or "no answer in time")
            print(
                f"tracking: not everything was sent from {self._folder.journal} ({reason}); the same command again "
                "(for a phase, with --resume) sends the rest",
                file=sys.stderr,
            )


def _line(text: str) -> str:
    return (text.splitlines() or [""])[0][:200]
