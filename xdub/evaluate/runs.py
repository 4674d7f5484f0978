"""Tracked runs read back from MLflow, by output folder or by run id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from xdub.errors import UserError

STATE = "run_state.json"
CURVES = ("loss/flow", "train/loss")
"""Whose history is read."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """One phase of one training run."""

    name: str
    phase: str
    run_id: str
    experiment_id: str
    uri: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    """Last value of each."""
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]
    """metric -> steps, values."""


def read_runs(names: Sequence[str], uri: str | None = None) -> list[TrackedRun]:
    """Runs by name: an output folder (all its phases), FOLDER/PHASE, or an MLflow run id (needs ``uri``).

    Raises UserError naming what was not found and what may be given.
    """
    found = []
    for name in names:
        places = _places(name, uri)
        several = len(places) > 1
        for run_uri, run_id, phase in places:
            label = f"{name.rstrip('/')}/{phase}" if several and phase else name.rstrip("/")
            found.append(_read(label, phase, run_uri, run_id))
    return found


def ui_command(runs: Sequence[TrackedRun], port: int = 5000) -> str:
    """Shell lines that open MLflow's own comparison of the runs."""
    lines = []
    for uri in dict.fromkeys(run.uri for run in runs):
        here = [run for run in runs if run.uri == uri]
        query = f"runs={_json([r.run_id for r in here])}"
        query += f"&experiments={_json(sorted({r.experiment_id for r in here}))}"
        if uri.startswith(("http://", "https://")):
            lines.append(f"{uri.rstrip('/')}/#/compare-runs?{query}")
        else:
            lines.append(f"mlflow ui --backend-store-uri {uri} --port {port}")
            lines.append(f"# then open http://127.0.0.1:{port}/#/compare-runs?{query}")
    return "\n".join(lines)


def _json(values: list[str]) -> str:
    return quote(json.dumps(values, separators=(",", ":")), safe="[],")


def _places(name: str, uri: str | None) -> list[tuple[str, str, str]]:
    """(tracking uri, run id, phase) of what a name means."""
    folder = Path(name)
    if (folder / STATE).is_file():
        state = _state(folder)
        return [(state["tracking_uri"], run_id, phase) for phase, run_id in state["phases"].items()]
    if (folder.parent / STATE).is_file():
        state = _state(folder.parent)
        if folder.name in state["phases"]:
            return [(state["tracking_uri"], state["phases"][folder.name], folder.name)]
        known = ", ".join(state["phases"]) or "none yet"
        raise UserError(f"{folder.parent} has no tracked phase {folder.name!r}; it has {known}")
    if uri is not None:
        return [(uri, name, "")]
    raise UserError(
        f"no run {name!r}: give the --out folder of a training run, FOLDER/PHASE, "
        "or an MLflow run id together with --tracking-uri"
    )


def _state(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads((folder / STATE).read_text("utf-8"))
        return {"tracking_uri": state["tracking_uri"], "phases": dict(state["phases"])}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / STATE} is damaged: {type(error).__name__} {error}") from error


def _read(name: str, phase: str, uri: str, run_id: str) -> TrackedRun:
    from mlflow import MlflowClient

    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise UserError(f"run {name}: its tracking database {uri} is gone")  # MLflow would make an empty one
    try:
        client = MlflowClient(tracking_uri=uri)
        run = client.get_run(run_id)
        curves = {}
        for metric in CURVES:
            points = sorted((m.step, m.value) for m in client.get_metric_history(run_id, metric))
            if points:
                curves[metric] = ([step for step, _ in points], [value for _, value in points])
    except Exception as error:  # MLflow's, or that of the database or network under it
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"run {name}: MLflow at {uri} does not give it ({reason})") from error
    return TrackedRun(
        name=name,
        phase=phase or run.data.tags.get("phase", ""),
        run_id=run_id,
        experiment_id=run.info.experiment_id,
        uri=uri,
        status=run.info.status,
        params=run.data.params,
        metrics=run.data.metrics,
        curves=curves,
    )
