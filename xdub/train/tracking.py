"""MLflow: one parent run for an output folder, one child run a phase. The only import of mlflow.

The driver makes the runs once and keeps their ids in OUT/run_state.json, so that a restart continues the same runs.
Metrics come from the journal (`xdub.train.journal`), never straight from the loop.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdub.train.records import write_atomic

EXPERIMENT = "xdub"
STATE = "run_state.json"
MAX_PARAM = 500
PARAMS_PER_CALL = 100
METRICS_PER_CALL = 1000


@dataclass(frozen=True, kw_only=True)
class RunIds:
    """Where a phase is tracked."""

    uri: str
    parent: str
    child: str


def default_uri(out: Path) -> str:
    """MLFLOW_TRACKING_URI if the user set one, else a sqlite file in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.resolve() / 'mlflow.db'}"


def open_runs(out: Path, phase: str, params: dict[str, Any]) -> RunIds:
    """The runs of ``out`` and ``phase``: made at the first call, found again at every later one.

    ``params`` are nested plain values. On a later call, params that changed become tags (MLflow's params are fixed).
    """
    from mlflow.entities import Param, RunTag

    state = read_state(out)
    uri = state.get("tracking_uri") or default_uri(out)
    client = _client(uri)
    if "parent" not in state:
        experiment = _experiment(client, out, uri)
        parent = client.create_run(experiment, run_name=out.resolve().name)
        state |= {
            "tracking_uri": uri,
            "experiment_id": experiment,
            "parent": parent.info.run_id,
            "phases": {},
        }
        _write_state(out, state)
    if phase not in state["phases"]:
        tags = {"mlflow.parentRunId": state["parent"], "phase": phase}
        run = client.create_run(state["experiment_id"], run_name=phase, tags=tags)
        state["phases"][phase] = run.info.run_id
        _write_state(out, state)
    child = state["phases"][phase]
    wanted = {key: str(value)[:MAX_PARAM] for key, value in flatten(params)}
    known = client.get_run(child).data.params
    fresh = [Param(key, value) for key, value in wanted.items() if key not in known]
    changed = {key: value for key, value in wanted.items() if known.get(key, value) != value}
    for low in range(0, len(fresh), PARAMS_PER_CALL):
        client.log_batch(child, params=fresh[low : low + PARAMS_PER_CALL])
    if changed:
        client.log_batch(child, tags=[RunTag(f"resumed.{key}", value) for key, value in changed.items()])
    for run_id in (state["parent"], child):
        client.update_run(run_id, status="RUNNING")
    return RunIds(uri=uri, parent=state["parent"], child=child)


def finish_run(out: Path, phase: str, status: str) -> None:
    """FINISHED, FAILED or KILLED, for the phase and, until another phase opens it again, for the parent."""
    state = read_state(out)
    client = _client(state["tracking_uri"])
    for run_id in (state["phases"][phase], state["parent"]):
        client.set_terminated(run_id, status=status)


class MlflowSink:
    """Delivers journal records to the run of a phase. Twice is as good as once: step, time and value are theirs."""

    def __init__(self, out: Path, phase: str, params: dict[str, Any]) -> None:
        self._out, self._phase, self._params = out, phase, params
        self._run_id, self._mlflow_client = "", None

    def open(self) -> None:
        """Make or find the run; raises while the tracker is away, and is tried again with the next records."""
        if self._mlflow_client is None:
            ids = open_runs(self._out, self._phase, self._params)
            self._run_id, self._mlflow_client = ids.child, _client(ids.uri)

    def finish(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""
        self.open()
        finish_run(self._out, self._phase, status)

    def __call__(self, records: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        self.open()
        metrics = [
            Metric(name, value, record["time_ms"], record["step"])
            for record in records
            if record["kind"] == "metrics"
            for name, value in record["values"].items()
        ]
        for low in range(0, len(metrics), METRICS_PER_CALL):
            self._mlflow_client.log_batch(self._run_id, metrics=metrics[low : low + METRICS_PER_CALL])
        for record in records:
            if record["kind"] == "artifact":
                self._mlflow_client.log_artifact(self._run_id, record["path"], record["folder"])


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values as dotted keys."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_state(out: Path) -> dict[str, Any]:
    """What OUT/run_state.json says, {} before the first run."""
    path = out / STATE
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _write_state(out: Path, state: dict[str, Any]) -> None:
    write_atomic(out / STATE, json.dumps(state, indent=1))


def _experiment(client: Any, out: Path, uri: str) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return found.experiment_id
    # Without an absolute place MLflow would put artefacts under the current folder. A server knows its own.
    place = f"file://{out.resolve() / 'mlartifacts'}" if uri.startswith("sqlite:") else None
    return client.create_experiment(EXPERIMENT, artifact_location=place)


def _client(uri: str) -> Any:
    """A client that gives up soon: what it cannot send stays in the journal."""
    defaults = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)
