"""Send records to MLflow.

All content of the runs comes from the journal (`xdub.tracking.journal`), never directly from the loop.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from xdub.files.atomic import atomic_path
from xdub.files.run_folder import RunFolder
from xdub.tracking.model_registry import register_model
from xdub.tracking.runs import RunIds, active_run, open_runs
from xdub.tracking.store import connect, local_path, plain_text

MAX_PARAM = 500
"""Longest param, in characters; the rest is cut off."""
PARAMS_PER_CALL = 100
METRICS_PER_CALL = 1000
REFUSALS = {"INVALID_PARAMETER_VALUE", "PERMISSION_DENIED"}
"""MLflow's error codes for records that it refuses however often they are sent."""

_OPENING = threading.Lock()
"""Lock held while runs are created, because several senders of this process may need the same runs."""


class MlflowSink:
    """Sink that delivers journal records to the runs of a phase.

    A record has its own step, time and value, so delivering it twice changes nothing.
    """

    def __init__(self, run: RunFolder, phase: str) -> None:
        self._run, self._phase = run, phase
        self._ids: RunIds | None = None
        self._client: Any = None

    def open(self, started: int | None = None) -> RunIds:
        """Create or find the runs; raise MLflow's exceptions, after which the next delivery tries again."""
        with _OPENING:
            if self._ids is None:
                ids = open_runs(self._run, self._phase, started=started)
                self._client = connect(ids.uri)
                self._ids = ids
            return self._ids

    def __call__(self, records: list[dict[str, Any]]) -> None:
        """Deliver records in order; raise MLflow's exceptions except its refusals of single records."""
        ids = self.open()
        try:
            self._deliver(ids, records)
        except Exception:
            # The runs may have been deleted, so the next delivery looks for them.
            self._ids = None
            raise

    def _deliver(self, ids: RunIds, records: list[dict[str, Any]]) -> None:
        for kind, group in groupby(records, key=lambda record: record["kind"]):
            if kind == "metrics":
                self._metrics(ids, list(group))
                continue
            for record in group:
                try:
                    getattr(self, f"_{kind}")(ids, record)
                # A record that MLflow always refuses must not block all later ones.
                except Exception as error:
                    if getattr(error, "error_code", None) not in REFUSALS:
                        raise
                    # MLflow refuses every record of a deleted run.
                    if not all(active_run(self._client, id_) for id_ in (ids.parent, ids.child)):
                        raise
                    print(f"tracking: MLflow refuses {_name(record)}: {error}", file=sys.stderr)

    def _metrics(self, ids: RunIds, records: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, record["time_ms"], record["step"])
            for record in records
            for name, value in record["values"].items()
        ]
        for low in range(0, len(metrics), METRICS_PER_CALL):
            self._client.log_batch(ids.child, metrics=metrics[low : low + METRICS_PER_CALL])

    def _params(self, ids: RunIds, record: dict[str, Any]) -> None:
        """Log params; changed ones become tags of the phase's run, because MLflow's params are fixed."""
        from mlflow.entities import Param, RunTag

        run_id = _run_id(ids, record)
        expected = {key: plain_text(value)[:MAX_PARAM] for key, value in flatten(record["values"])}
        logged = self._client.get_run(run_id).data.params
        fresh = [Param(key, value) for key, value in expected.items() if key not in logged]
        for low in range(0, len(fresh), PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=fresh[low : low + PARAMS_PER_CALL])
        changed = {key: value for key, value in expected.items() if logged.get(key, value) != value}
        if changed and run_id == ids.child:
            tags = [RunTag(f"resumed.{key}", value) for key, value in changed.items()]
            self._client.log_batch(run_id, tags=tags)

    def _tags(self, ids: RunIds, record: dict[str, Any]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(key, plain_text(value)) for key, value in record["values"].items()]
        self._client.log_batch(ids.child, tags=tags)

    def _status(self, ids: RunIds, record: dict[str, Any]) -> None:
        """Set the status of the phase and, until another phase opens it again, of the parent."""
        for run_id in (ids.child, ids.parent):
            if record["value"] == "RUNNING":
                self._client.update_run(run_id, status="RUNNING")
            else:
                self._client.set_terminated(run_id, status=record["value"], end_time=record["time_ms"])

    def _artifact(self, ids: RunIds, record: dict[str, Any]) -> None:
        if not Path(record["path"]).is_file():
            print(f"tracking: {record['path']} is gone and was never sent", file=sys.stderr)
            return
        run_id = _run_id(ids, record)
        folder = local_path(self._client.get_run(run_id).info.artifact_uri)
        if folder is None:
            self._client.log_artifact(run_id, record["path"], record["folder"])
            return
        # MLflow would copy the file with its mode, which not every file system accepts.
        target = folder / record["folder"] / Path(record["path"]).name
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            shutil.copyfile(record["path"], temporary)

    def _model(self, ids: RunIds, record: dict[str, Any]) -> None:
        params = {key: plain_text(value)[:MAX_PARAM] for key, value in flatten(record["params"])}
        register_model(
            self._client,
            ids.child,
            ids.experiment,
            name=record["name"],
            source=record["source"],
            params=params,
            tags=record["tags"],
            remote=ids.uri.startswith(("http://", "https://")),
        )


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested values with dotted keys."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _run_id(ids: RunIds, record: dict[str, Any]) -> str:
    return ids.parent if record.get("to") == "parent" else ids.child


def _name(record: dict[str, Any]) -> str:
    return str(record.get("path") or record.get("name") or f"the {record['kind']}")
