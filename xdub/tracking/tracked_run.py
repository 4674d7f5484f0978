"""The driver's side of tracking: what a stage is begun and ended with in its journal, and the threads that send it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from xdub.data.manifest import read_manifest
from xdub.files.atomic import write_json, write_text
from xdub.tracking.journal import LANES, Journal, Shipper, pending_bytes
from xdub.tracking.provenance import code_version, data_summary
from xdub.tracking.sink import MlflowSink

JOURNAL = "journal.jsonl"
OPEN_SECONDS, FLUSH_SECONDS = 30.0, 60.0
"""How long a stage's start and end wait at most. A server that refuses, or does not answer a call within its time-out,
ends the wait at once; these bound a database that is locked or a machine that is overloaded."""


class TrackedRun:
    """Sends FOLDER/journal.jsonl from this process. A tracker that is away is no reason not to work."""

    def __init__(self, out: Path, name: str, folder: Path) -> None:
        """The run ``name`` below the run of ``out``, which keeps the ids; ``folder`` holds the journal."""
        self._folder, self._name = folder, name
        self._path = folder / JOURNAL
        self._sink = MlflowSink(out, name)
        self._shippers: list[Shipper] = []

    def begin(
        self, recipe: dict[str, Any], recipe_text: str, data: Sequence[Path], facts: dict[str, Any]
    ) -> None:
        """Journal what the stage is made of, and send from now on. Before its workers start: they may write next.

        ``facts``: params besides the recipe's.
        """
        manifests = [read_manifest(folder) for folder in data]
        code = code_version()
        write_text(self._folder / "recipe.yaml", recipe_text)
        write_json(self._folder / "data.json", [data_summary(m) for m in manifests])
        described = {
            "rows": sum(len(m.ids) for m in manifests),
            "folders": [str(m.folder) for m in manifests],
            "digest": [m.digest for m in manifests],
        }
        journal = Journal(self._path)
        journal.status("RUNNING")
        journal.params(recipe | {"phase": self._name, "code": code, "data": described} | facts)
        journal.params(recipe | {"code": code}, to="parent")
        if "commit" in code:  # what MLflow's own pages show as the source
            tags = {"mlflow.source.git.commit": code["commit"], "mlflow.source.name": f"xdub {self._name}"}
            journal.tags(tags | {"code.dirty": str(code["dirty"]).lower()})
        for name, folder in (("recipe.yaml", "config"), ("data.json", "data")):
            journal.artifact(self._folder / name, folder)
        journal.artifact(self._folder / "recipe.yaml", "config", to="parent")
        journal.close()
        self._start()
        numbers = self._shippers[0]
        numbers.tried.wait(OPEN_SECONDS)
        if numbers.last_error or not numbers.tried.is_set():
            reason = _line(numbers.last_error or f"no answer within {OPEN_SECONDS:g} s")
            print(f"tracking is not reachable ({reason}): metrics wait in {self._path}", file=sys.stderr)

    def end(
        self,
        status: Literal["FINISHED", "FAILED", "KILLED"],
        *,
        model: dict[str, Any] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """Journal how it ended, with weights for the registry and files, and send what is left. After the workers."""
        journal = Journal(self._path)
        for path in files:
            journal.artifact(path, "results")
        if model is not None:
            journal.model(**model)
        journal.status(status)
        journal.close()
        self._close()

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Add figures that were measured afterwards, with the weights of ``step``."""
        journal = Journal(self._path)
        journal.evaluation(step, values)
        journal.close()
        self.send_rest()

    def send_rest(self) -> None:
        """What was not sent yet."""
        if pending_bytes(self._path):
            self._start()
            self._close()

    def _start(self) -> None:
        self._shippers = [Shipper(self._path, self._sink, lane).start() for lane in LANES]

    def _close(self) -> None:
        deadline = time.monotonic() + FLUSH_SECONDS
        left = [shipper for shipper in self._shippers if shipper.close(deadline - time.monotonic())]
        if left:
            reason = _line(left[0].last_error or "no answer in time")
            print(
                f"tracking: not everything was sent from {self._path} ({reason}); the same command again "
                "(for a phase, with --resume) sends the rest",
                file=sys.stderr,
            )


def _line(text: str) -> str:
    return (text.splitlines() or [""])[0][:200]
