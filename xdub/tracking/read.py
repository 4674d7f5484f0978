"""Tracked runs read back from MLflow, by output folder or by run id."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from xdub.errors import UserError

STATE = "run_state.json"
TOTAL, LOSSES, BAND = "train/loss", "loss/", "/t_bin_"
BANDS = 10
LAST_SHARE = 0.25
"""A loss by noise band is the mean over this last part of the run: a single value is of a few samples."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""MLflow's own would wait minutes for a server that is not there."""


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
    """loss -> steps, values."""
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    """loss -> noise levels t (centres of the bands that had samples), mean over the last quarter of the run."""

    @property
    def settings(self) -> dict[str, str]:
        """The params that counted for this phase: those of `train` as it used them, not other phases' own."""
        resolved = {
            k.removeprefix("resolved."): v for k, v in self.params.items() if k.startswith("resolved.")
        }
        if not resolved:
            return dict(self.params)
        own = f"phases.{self.phase}."
        kept = {
            key: value
            for key, value in self.params.items()
            if not key.startswith(("resolved.", "train."))
            and (not key.startswith("phases.") or key.startswith(own))
            and key.removeprefix(own) not in resolved
        }
        return kept | {f"train.{key}": value for key, value in resolved.items()}


def read_runs(names: Sequence[str], uri: str | None = None) -> list[TrackedRun]:
    """Runs by name: an output folder (all its phases), FOLDER/PHASE, or an MLflow run id (a parent's means all its
    phases).

    ``uri`` is where MLflow is, MLFLOW_TRACKING_URI if not given; folders know it themselves, and are read there only if
    it is given. Raises UserError naming what was not found and what may be given.
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
    """MLflow's own comparison of the runs: its address on a running server, else shell lines that open it."""
    lines = []
    stores = list(dict.fromkeys(run.uri for run in runs))
    for number, uri in enumerate(stores):
        here = [run for run in runs if run.uri == uri]
        query = f"runs={_json([r.run_id for r in here])}"
        query += f"&experiments={_json(sorted({r.experiment_id for r in here}))}"
        if uri.startswith(("http://", "https://")):
            lines.append(f"{uri.rstrip('/')}/#/compare-runs?{query}")
        else:
            lines.append(f"mlflow ui --backend-store-uri {uri} --port {port + number}")
            lines.append(f"# then open http://127.0.0.1:{port + number}/#/compare-runs?{query}")
    if len(stores) > 1:
        lines.append(
            "# MLflow compares what lies in one place: train with one MLFLOW_TRACKING_URI to see all at once"
        )
    return "\n".join(lines)


def _json(values: list[str]) -> str:
    return quote(json.dumps(values, separators=(",", ":")), safe="[],")


def _places(name: str, uri: str | None) -> list[tuple[str, str, str]]:
    """(tracking uri, run id, phase) of what a name means."""
    folder = Path(name)
    if (folder / STATE).is_file():
        state = _state(folder)
        return [(uri or state["tracking_uri"], run_id, phase) for phase, run_id in state["phases"].items()]
    if (folder.parent / STATE).is_file():
        state = _state(folder.parent)
        if folder.name in state["phases"]:
            return [(uri or state["tracking_uri"], state["phases"][folder.name], folder.name)]
        known = ", ".join(state["phases"]) or "none yet"
        raise UserError(f"{folder.parent} has no tracked phase {folder.name!r}; it has {known}")
    if uri := uri or os.environ.get("MLFLOW_TRACKING_URI"):
        return _phases_of(uri, name)
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


def _phases_of(uri: str, run_id: str) -> list[tuple[str, str, str]]:
    """The children of a parent run; the run itself if it has none."""
    with _asking(run_id, uri) as client:
        experiment = client.get_run(run_id).info.experiment_id
        found = client.search_runs(
            [experiment], f"tags.`mlflow.parentRunId` = '{run_id}'", order_by=["start_time"]
        )
        return [(uri, run.info.run_id, run.data.tags.get("phase", "")) for run in found] or [
            (uri, run_id, "")
        ]


@contextmanager
def _asking(name: str, uri: str) -> Iterator[Any]:
    """A client whose failures are told in one line."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise UserError(f"run {name}: its tracking database {uri} is gone")  # MLflow would make an empty one
    for variable, value in PATIENCE.items():
        os.environ.setdefault(variable, value)
    from mlflow import MlflowClient

    try:
        yield MlflowClient(tracking_uri=uri)
    except Exception as error:  # MLflow's, or that of the database or network under it
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"run {name}: MLflow at {uri} does not give it ({reason})") from error


def _read(name: str, phase: str, uri: str, run_id: str) -> TrackedRun:
    with _asking(name, uri) as client:
        run = client.get_run(run_id)
        wanted = [metric for metric in sorted(run.data.metrics) if metric.startswith((TOTAL, LOSSES))]
        history = {
            metric: sorted(
                {point.step: point.value for point in client.get_metric_history(run_id, metric)}.items()
            )
            for metric in wanted
        }
    curves = {
        metric: ([step for step, _ in points], [value for _, value in points])
        for metric, points in history.items()
        if BAND not in metric
    }
    if curves.get(TOTAL) == curves.get("loss/flow"):  # a phase with a single loss
        curves.pop(TOTAL, None)
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
        bands=_bands(history),
    )


def _bands(
    history: Mapping[str, Sequence[tuple[int, float]]],
) -> dict[str, tuple[list[float], list[float]]]:
    last_step = max((step for points in history.values() for step, _ in points), default=0)
    bands: dict[str, tuple[list[float], list[float]]] = {}
    for metric, points in history.items():  # by name, so bands come in order
        loss, is_band, number = metric.partition(BAND)
        late = [value for step, value in points if step > (1 - LAST_SHARE) * last_step]
        if is_band and late:
            levels, values = bands.setdefault(loss, ([], []))
            levels.append((int(number) + 0.5) / BANDS)
            values.append(sum(late) / len(late))
    return bands
