"""Write to MLflow: one parent run for each output folder, one child run for each phase.

The driver creates the runs once and keeps their ids in OUT/run_state.json, so that a restart continues the same runs.
All content of the runs comes from the journal (`xdub.tracking.journal`), never directly from the loop. No other writer
imports mlflow.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from xdub.files.atomic import write_json
from xdub.files.run_folder import RunFolder
from xdub.tracking.model_registry import register_model

EXPERIMENT = "xdub"
"""Experiment of all runs."""
KEY = "xdub.key"
"""Tag by which a run is found when the call that created it got no answer."""
MAX_PARAM = 500
"""Longest param, in characters; the rest is cut off."""
PARAMS_PER_CALL = 100
METRICS_PER_CALL = 1000
REFUSALS = {"INVALID_PARAMETER_VALUE", "PERMISSION_DENIED"}
"""MLflow's error codes for records that it refuses however often they are sent."""


_OPENING = threading.Lock()
"""Lock held while runs are created, because several senders of this process may need the same runs."""


@dataclass(frozen=True, kw_only=True)
class RunIds:
    """Address and ids of a phase's runs."""

    uri: str
    experiment: str
    parent: str
    child: str


def default_uri(run: RunFolder) -> str:
    """Return MLFLOW_TRACKING_URI if the user set one, else a sqlite file in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.database.resolve()}"


def open_runs(run: RunFolder, phase: str) -> RunIds:
    """Return the runs of an output folder and a phase: the first call creates them, later calls find them.

    A server may execute a request long after its time-out (stopped, then continued), so the key of a run is saved
    before the run is created, and searched for before another one is created.
    """
    state = read_state(run)
    if "key" not in state:
        state |= {"key": uuid.uuid4().hex, "phases": state.get("phases", {})}
        _write_state(run, state)
    client, uri = _client_of(run, state)
    if state.get("tracking_uri") != uri or "parent" not in state:
        state |= {"tracking_uri": uri, "experiment_id": _experiment(client, run, uri)}
        if "parent" not in state:
            state["parent"] = _find_or_create(client, state, state["key"], run.path.resolve().name, {})
        _write_state(run, state)
    if phase not in state["phases"]:
        tags = {"mlflow.parentRunId": state["parent"], "phase": phase}
        state["phases"][phase] = _find_or_create(client, state, f"{state['key']}/{phase}", phase, tags)
        _write_state(run, state)
    return RunIds(
        uri=uri,
        experiment=state["experiment_id"],
        parent=state["parent"],
        child=state["phases"][phase],
    )


class MlflowSink:
    """Sink that delivers journal records to the runs of a phase.

    A record has its own step, time and value, so delivering it twice changes nothing.
    """

    def __init__(self, run: RunFolder, phase: str) -> None:
        self._run, self._phase = run, phase
        self._ids: RunIds | None = None
        self._client: Any = None

    def open(self) -> RunIds:
        """Create or find the runs; raise MLflow's exceptions, after which the next delivery tries again."""
        with _OPENING:
            if self._ids is None:
                ids = open_runs(self._run, self._phase)
                self._client = _client(ids.uri)
                self._ids = ids
            return self._ids

    def __call__(self, records: list[dict[str, Any]]) -> None:
        """Deliver records in order; raise MLflow's exceptions except its refusals of single records."""
        ids = self.open()
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
        expected = {key: str(value)[:MAX_PARAM] for key, value in flatten(record["values"])}
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

        tags = [RunTag(key, str(value)) for key, value in record["values"].items()]
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
        self._client.log_artifact(_run_id(ids, record), record["path"], record["folder"])

    def _model(self, ids: RunIds, record: dict[str, Any]) -> None:
        params = {key: str(value)[:MAX_PARAM] for key, value in flatten(record["params"])}
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


def read_state(run: RunFolder) -> dict[str, Any]:
    """Return the ids of a run; {} before its first phase."""
    return json.loads(run.state.read_text("utf-8")) if run.state.is_file() else {}


def _write_state(run: RunFolder, state: dict[str, Any]) -> None:
    write_json(run.state, state)


def _run_id(ids: RunIds, record: dict[str, Any]) -> str:
    return ids.parent if record.get("to") == "parent" else ids.child


def _name(record: dict[str, Any]) -> str:
    return str(record.get("path") or record.get("name") or f"the {record['kind']}")


def _client_of(run: RunFolder, state: dict[str, Any]) -> tuple[Any, str]:
    """Return client and address of the store that holds the runs.

    This is the store that created the runs, unless MLFLOW_TRACKING_URI names another store that also holds them,
    because the server moved.
    """
    first, current = state.get("tracking_uri"), default_uri(run)
    if first is None or first == current or "parent" not in state:
        return _client(current), current
    client = _client(current)
    try:
        client.get_run(state["parent"])
    except Exception as error:
        if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
            raise
        return _client(first), first
    return client, current


def _find_or_create(client: Any, state: dict[str, Any], key: str, name: str, tags: dict[str, str]) -> str:
    """Return the id of the run with this key, which is created if the store has none."""
    runs = client.search_runs([state["experiment_id"]], f"tags.`{KEY}` = '{key}'", max_results=1)
    if runs:
        return runs[0].info.run_id
    return client.create_run(state["experiment_id"], run_name=name, tags=tags | {KEY: key}).info.run_id


def _experiment(client: Any, run: RunFolder, uri: str) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return experiment.experiment_id
    # MLflow would write artefacts below the current directory. A server has a folder of its own.
    folder = f"file://{run.artifacts.resolve()}" if uri.startswith("sqlite:") else None
    return client.create_experiment(EXPERIMENT, artifact_location=folder)


def _client(uri: str) -> Any:
    """Return a client that gives up soon, because the journal keeps the records and retries."""
    defaults = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    import logging

    from mlflow import MlflowClient

    # Alembic and MLflow log every creation of a database and every retry; MLflow's import sets another level.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)
