"""MLflow: one parent run for an output folder, one child run a phase. The only import of mlflow.

The driver makes the runs once and keeps their ids in OUT/run_state.json, so that a restart continues the same runs.
All they hold comes from the journal (`xdub.tracking.journal`), never straight from the loop.
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
from xdub.tracking.registry import register_model

EXPERIMENT = "xdub"
STATE = "run_state.json"
KEY = "xdub.key"
"""Tag by which a run is found again whose making was never answered."""
MAX_PARAM = 500
PARAMS_PER_CALL = 100
METRICS_PER_CALL = 1000
REFUSALS = {"INVALID_PARAMETER_VALUE", "PERMISSION_DENIED"}
"""MLflow's error codes for what it will not take however often it is sent."""


_OPENING = threading.Lock()
"""Makes runs once for all senders of this process, those of an earlier phase that still wait among them."""


@dataclass(frozen=True, kw_only=True)
class RunIds:
    """Where a phase is tracked."""

    uri: str
    experiment: str
    parent: str
    child: str


def default_uri(out: Path) -> str:
    """MLFLOW_TRACKING_URI if the user set one, else a sqlite file in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.resolve() / 'mlflow.db'}"


def open_runs(out: Path, phase: str) -> RunIds:
    """The runs of ``out`` and ``phase``: made at the first call, found again at every later one.

    A server may do what it was asked long after we gave up waiting (stopped, then continued). So the name that a run
    is to be found by is kept before it is asked for, and looked for before it is asked for again.
    """
    state = read_state(out)
    if "key" not in state:
        state |= {"key": uuid.uuid4().hex, "phases": state.get("phases", {})}
        _write_state(out, state)
    client, uri = _client_of(out, state)
    if state.get("tracking_uri") != uri or "parent" not in state:
        state |= {"tracking_uri": uri, "experiment_id": _experiment(client, out, uri)}
        if "parent" not in state:
            state["parent"] = _make_run(client, state, state["key"], out.resolve().name, {})
        _write_state(out, state)
    if phase not in state["phases"]:
        tags = {"mlflow.parentRunId": state["parent"], "phase": phase}
        state["phases"][phase] = _make_run(client, state, f"{state['key']}/{phase}", phase, tags)
        _write_state(out, state)
    return RunIds(
        uri=uri,
        experiment=state["experiment_id"],
        parent=state["parent"],
        child=state["phases"][phase],
    )


class MlflowSink:
    """Delivers journal records to the runs of a phase. Twice is as good as once: step, time and value are theirs."""

    def __init__(self, out: Path, phase: str) -> None:
        self._out, self._phase = out, phase
        self._ids: RunIds | None = None
        self._client: Any = None

    def open(self) -> RunIds:
        """Make or find the runs; raises while the tracker is away, and is tried again with the next records."""
        with _OPENING:
            if self._ids is None:
                ids = open_runs(self._out, self._phase)
                self._client = _client(ids.uri)
                self._ids = ids
            return self._ids

    def __call__(self, records: list[dict[str, Any]]) -> None:
        ids = self.open()
        for kind, some in groupby(records, key=lambda record: record["kind"]):
            if kind == "metrics":
                self._metrics(ids, list(some))
                continue
            for record in some:
                try:
                    getattr(self, f"_{kind}")(ids, record)
                except Exception as error:  # one that it never takes must not hold up all that come after
                    if getattr(error, "error_code", None) not in REFUSALS:
                        raise
                    print(f"tracking: MLflow does not take {_name(record)}: {error}", file=sys.stderr)

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
        """Those that changed become tags of the phase's run: MLflow's params are fixed."""
        from mlflow.entities import Param, RunTag

        run_id = _run_id(ids, record)
        wanted = {key: str(value)[:MAX_PARAM] for key, value in flatten(record["values"])}
        known = self._client.get_run(run_id).data.params
        fresh = [Param(key, value) for key, value in wanted.items() if key not in known]
        for low in range(0, len(fresh), PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=fresh[low : low + PARAMS_PER_CALL])
        changed = {key: value for key, value in wanted.items() if known.get(key, value) != value}
        if changed and run_id == ids.child:
            tags = [RunTag(f"resumed.{key}", value) for key, value in changed.items()]
            self._client.log_batch(run_id, tags=tags)

    def _tags(self, ids: RunIds, record: dict[str, Any]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(key, str(value)) for key, value in record["values"].items()]
        self._client.log_batch(ids.child, tags=tags)

    def _status(self, ids: RunIds, record: dict[str, Any]) -> None:
        """Of the phase and, until another phase opens it again, of the parent."""
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
        told = {key: record[key] for key in ("name", "source", "tags")} | {"params": params}
        remote = ids.uri.startswith(("http://", "https://"))
        register_model(self._client, ids.child, ids.experiment, remote=remote, **told)


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
    write_json(out / STATE, state)


def _run_id(ids: RunIds, record: dict[str, Any]) -> str:
    return ids.parent if record.get("to") == "parent" else ids.child


def _name(record: dict[str, Any]) -> str:
    return str(record.get("path") or record.get("name") or f"the {record['kind']}")


def _client_of(out: Path, state: dict[str, Any]) -> tuple[Any, str]:
    """The store that holds the runs: where they were made, unless MLFLOW_TRACKING_URI names one that has them too,
    a server that moved to another address."""
    made_at, wanted = state.get("tracking_uri"), default_uri(out)
    if made_at is None or made_at == wanted or "parent" not in state:
        return _client(wanted), wanted
    client = _client(wanted)
    try:
        client.get_run(state["parent"])
    except Exception as error:
        if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
            raise
        return _client(made_at), made_at
    return client, wanted


def _make_run(client: Any, state: dict[str, Any], key: str, name: str, tags: dict[str, str]) -> str:
    """Id of the run with this key, made unless it is there."""
    found = client.search_runs([state["experiment_id"]], f"tags.`{KEY}` = '{key}'", max_results=1)
    if found:
        return found[0].info.run_id
    return client.create_run(state["experiment_id"], run_name=name, tags=tags | {KEY: key}).info.run_id


def _experiment(client: Any, out: Path, uri: str) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return found.experiment_id
    # Without an absolute place MLflow would put artefacts under the current folder. A server knows its own.
    place = f"file://{out.resolve() / 'mlartifacts'}" if uri.startswith("sqlite:") else None
    return client.create_experiment(EXPERIMENT, artifact_location=place)


def _client(uri: str) -> Any:
    """A client that gives up soon: what it cannot send stays in the journal, which tries again by itself."""
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

    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Of the making of a database, and of each of its own tries to reach one; its import sets another level.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)
