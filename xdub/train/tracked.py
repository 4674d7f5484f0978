"""The driver's side of tracking: what a phase is begun and ended with in the journal, and the threads that send it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from xdub.config import Recipe
from xdub.data.manifest import file_sha256, read_manifest
from xdub.train.journal import LANES, Journal, Shipper, pending_bytes
from xdub.train.networks import weights_file
from xdub.train.provenance import code_version, data_summary
from xdub.train.records import write_atomic
from xdub.train.tracking import MlflowSink
from xdub.train.worker import JOURNAL

OPEN_SECONDS, FLUSH_SECONDS = 30.0, 60.0
"""How long a phase's start and end wait at most. A server that refuses, or does not answer a call within its time-out,
ends the wait at once; these bound a database that is locked or a machine that is overloaded."""


class Tracking:
    """Sends OUT/<phase>/journal.jsonl from this process. A tracker that is away is no reason not to train."""

    def __init__(self, out: Path, phase: str) -> None:
        self._folder, self._phase = out / phase, phase
        self._path = self._folder / JOURNAL
        self._sink = MlflowSink(out, phase)
        self._shippers: list[Shipper] = []

    def begin(self, recipe: Recipe, data: Sequence[Path], rows: int) -> None:
        """Journal what the phase is made of, and send from now on. Before the workers start: they write next."""
        manifests = [read_manifest(folder) for folder in data]
        code, raw = code_version(), recipe.to_dict()
        write_atomic(self._folder / "recipe.yaml", recipe.to_yaml())
        write_atomic(self._folder / "data.json", json.dumps([data_summary(m) for m in manifests], indent=1))
        facts = {
            "phase": self._phase,
            "resolved": vars(recipe.for_phase(self._phase)),
            "code": code,
            "data": {
                "rows": rows,
                "folders": [str(m.folder) for m in manifests],
                "digest": [m.digest for m in manifests],
            },
        }
        journal = Journal(self._path)
        journal.status("RUNNING")
        journal.params(raw | facts)
        journal.params(raw | {"code": code}, to="parent")
        if "commit" in code:  # what MLflow's own pages show as the source
            tags = {"mlflow.source.git.commit": code["commit"], "mlflow.source.name": "xdub train"}
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

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Journal how it ended, a finished phase's weights too, and send what is left. After the workers' end."""
        journal = Journal(self._path)
        if status == "FINISHED":
            journal.model(**exported_model(self._folder / "export"))
        journal.status(status)
        journal.close()
        self._close()

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Add figures that were measured after training, with the weights of ``step``."""
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
                f"tracking: not everything was sent from {self._path} ({reason}); --resume sends the rest",
                file=sys.stderr,
            )


def exported_model(export: Path) -> dict[str, Any]:
    """What the registry is told of a phase's exported weights; a new version for every finished training."""
    weights, config = weights_file(export), json.loads((export / "config.json").read_text("utf-8"))
    phase, step, recipe = config["phase"], config["step"], config["recipe"]
    return {
        "name": f"xdub-{recipe['name']}-{phase}",
        "source": export.resolve().as_uri(),
        "params": recipe | {"phase": phase, "step": step},
        "tags": {
            "sha256": file_sha256(weights),
            "bytes": str(weights.stat().st_size),
            "phase": phase,
            "step": str(step),
            "recipe": recipe["name"],
        },
    }


def _line(text: str) -> str:
    return (text.splitlines() or [""])[0][:200]
