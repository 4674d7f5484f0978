"""Runs in MLflow: one parent run for each output folder, one child run for each phase.

The driver creates the runs once and keeps their ids in OUT/run_state.json, so that a restart continues the same runs.
"""

from __future__ import annotations

import itertools
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdub.errors import UserError
from xdub.files.atomic import write_json
from xdub.files.run_folder import RunFolder
from xdub.tracking.store import (
    artifact_folder,
    connect,
    current_uri,
    local_path,
    moves_with_run,
    plain_text,
    store_record,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

EXPERIMENT = "xdub"
"""Experiment of all runs, unless MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID names another one."""
KEY = "xdub.key"
"""Tag by which a run is found when the call that created it got no answer."""
PARENT = "mlflow.parentRunId"
"""MLflow's tag that puts a phase below the run of its folder."""


@dataclass(frozen=True, kw_only=True)
class RunIds:
    """Address and ids of a phase's runs."""

    uri: str
    experiment: str
    parent: str
    child: str
    created: bool = field(default=False, compare=False)
    """True if this call created one of the runs."""

    @property
    def target(self) -> str:
        """Identifier of both runs: what was sent to others is sent again."""
        return f"{self.parent}/{self.child}"


def open_runs(run: RunFolder, phase: str, *, started: int | None = None) -> RunIds:
    """Return the runs of an output folder and a phase: the first call creates them, later calls find them.

    A run is created again if its store has it no more: it was deleted, its files lie in a folder that was moved, or
    MLFLOW_TRACKING_URI names another store.

    A server may execute a request long after its time-out (stopped, then continued), so the key of a run is saved
    before the run is created, and searched for before another one is created.

    Args:
        started: start of the phase in ms since 1970, for a run that is created; None: now.

    Raises:
        UserError: the store's address or experiment cannot be used.
    """
    state = read_state(run)
    if "key" not in state:
        state |= {"key": uuid.uuid4().hex, "phases": state.get("phases", {})}
        _write_state(run, state)
    uri = current_uri(run, state)
    client, created = connect(uri), False
    parent = _usable(client, run, uri, state.get("parent"))
    if parent is None:
        experiment, created = _experiment(client, run, uri), True
        id_ = _find_or_create(client, experiment, state["key"], _run_name(run), {}, started)
        # Runs of other phases that this store has stay comparable until their phase is called again.
        phases = {name: child for name, child in state["phases"].items() if active_run(client, child)}
        state |= {"experiment_id": experiment, "parent": id_, "phases": phases}
    else:
        state["experiment_id"] = parent.info.experiment_id
    _write_state(run, state | store_record(run, uri))
    child = _usable(client, run, uri, state["phases"].get(phase))
    tags = {PARENT: state["parent"], "phase": phase}
    if child is None:
        created, key = True, f"{state['key']}/{phase}"
        id_ = _find_or_create(client, state["experiment_id"], key, phase, tags, started)
        state["phases"][phase] = id_
        _write_state(run, state | store_record(run, uri))
    elif child.data.tags.get(PARENT) != state["parent"]:
        client.set_tag(child.info.run_id, PARENT, state["parent"])
    return RunIds(
        uri=uri,
        experiment=state["experiment_id"],
        parent=state["parent"],
        child=state["phases"][phase],
        created=created,
    )


def read_state(run: RunFolder) -> dict[str, Any]:
    """Return the ids of a run; {} before its first phase. Raise UserError for a damaged file."""
    if not run.state.is_file():
        return {}
    try:
        state = json.loads(run.state.read_text("utf-8"))
        if not isinstance(state, dict):
            raise ValueError("no table of ids")
    except ValueError as error:
        raise UserError(
            f"{run.state} is damaged ({error}); remove it, and the next `xdub train` with --resume sends the runs again"
        ) from error
    return state


def _write_state(run: RunFolder, state: dict[str, Any]) -> None:
    write_json(run.state, state)


def _run_name(run: RunFolder) -> str:
    return plain_text(run.path.resolve().name) or EXPERIMENT


def active_run(client: MlflowClient, run_id: str | None) -> Run | None:
    """Return a run that the store has and that is not deleted, else None."""
    if run_id is None:
        return None
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def _usable(client: MlflowClient, run: RunFolder, uri: str, run_id: str | None) -> Run | None:
    """Return an active run whose files are beside its database, else None.

    MLflow stores the absolute folder of the files with the run and with its experiment, and neither can be changed, so
    a run that was moved with its database would write at its old place.
    """
    result = active_run(client, run_id)
    if result is not None and _moved(run, uri, Path(result.info.artifact_uri or "").parent.parent):
        return None
    return result


def _moved(run: RunFolder, uri: str, location: str | Path) -> bool:
    """Return whether a folder of files that we created is no more where its database is."""
    around = moves_with_run(run, uri)
    path = local_path(str(location))
    if around is None or path is None:
        return False
    # MLflow puts the files of its experiment "Default" below the current folder.
    ours = path.name == run.artifacts.name or path.parts[-2:] == ("mlruns", "0")
    return ours and not path.is_relative_to(around)


def _find_or_create(
    client: MlflowClient, experiment: str, key: str, name: str, tags: dict[str, str], started: int | None
) -> str:
    """Return the id of the run with this key, which is created if the experiment has none."""
    runs = client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
    if runs:
        return runs[0].info.run_id
    tags = tags | {KEY: key}
    return client.create_run(experiment, start_time=started, run_name=name, tags=tags).info.run_id


def _experiment(client: MlflowClient, run: RunFolder, uri: str) -> str:
    """Return the id of the experiment for a new run: that of the environment, or "xdub".

    The name of a deleted experiment is not free, and that of a moved one names the old place; a number is appended
    to either.

    Raises:
        UserError: MLFLOW_EXPERIMENT_ID names no active experiment.
    """
    chosen, number = os.environ.get("MLFLOW_EXPERIMENT_NAME"), os.environ.get("MLFLOW_EXPERIMENT_ID")
    if number and not chosen:
        experiment = _experiment_by_id(client, number)
        if _moved(run, uri, experiment.artifact_location):
            raise UserError(
                f"MLFLOW_EXPERIMENT_ID={number}: its files would be written to {experiment.artifact_location}; "
                "set MLFLOW_EXPERIMENT_NAME"
            )
        return experiment.experiment_id
    for attempt in itertools.count(1):
        name = (chosen or EXPERIMENT) + (f"-{attempt}" if attempt > 1 else "")
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            # MLflow would write artefacts below the current directory. A server has a folder of its own.
            folder = artifact_folder(run, uri)
            return client.create_experiment(
                name, artifact_location=None if folder is None else folder.as_uri()
            )
        if experiment.lifecycle_stage == "active" and not _moved(run, uri, experiment.artifact_location):
            return experiment.experiment_id
    raise AssertionError


def _experiment_by_id(client: MlflowClient, number: str) -> Experiment:
    try:
        experiment = client.get_experiment(number)
    except Exception as error:
        if getattr(error, "error_code", None) not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        experiment = None
    if experiment is None or experiment.lifecycle_stage != "active":
        raise UserError(
            f"MLFLOW_EXPERIMENT_ID={number}: the MLflow store has no such experiment; "
            "name one that it has, or set MLFLOW_EXPERIMENT_NAME"
        )
    return experiment
