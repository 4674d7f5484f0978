"""Read tracked runs back from MLflow, by output folder or by run id."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from xdub.errors import UserError
from xdub.files.run_folder import RunFolder
from xdub.tracking.runs import read_state
from xdub.tracking.store import connect, recorded_uri, sqlite_file, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

TOTAL, LOSSES, BAND = "train/loss", "loss/", "/t_bin_"
"""Names of metrics: the loss that is minimised, the prefix of single losses, and the infix of losses by noise band."""
BANDS = 10
"""Number of noise bands between t = 0 and t = 1."""
LAST_SHARE = 0.25
"""Last part of a run over which a loss by noise band is averaged, because one logged value comes from few samples."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Environment that makes MLflow give up within seconds; its defaults wait minutes for a server that is down."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """One phase of one training run, as MLflow stores it."""

    name: str
    """Name that the caller passed, followed by the phase if the name stands for several runs."""
    phase: str
    """Name of the phase; empty if the run has none."""
    run_id: str
    experiment_id: str
    uri: str
    """Address of the MLflow store."""
    status: str
    """State in MLflow, such as FINISHED."""
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    """Metric's name -> its last value."""
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]
    """loss -> steps, values."""
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    """loss -> noise levels t (centres of the bands that had samples), mean over the last quarter of the run."""

    @property
    def settings(self) -> dict[str, str]:
        """Params that applied to this phase: `train` as the phase used it, without the sections of other phases."""
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
    """Read runs by name: an output folder (all its phases), FOLDER/PHASE, or an MLflow run id.

    The id of a parent run stands for all its phases. ``uri`` is the address of MLflow; None means the folder's own
    address, or MLFLOW_TRACKING_URI for an id.

    Raises:
        UserError: a run does not exist, or MLflow does not answer; the message names the valid choices.
    """
    runs = []
    for name in names:
        entries = _locate(name, uri)
        several = len(entries) > 1
        for run_uri, run_id, phase in entries:
            label = f"{name.rstrip('/')}/{phase}" if several and phase else name.rstrip("/")
            runs.append(_read(label, phase, run_uri, run_id))
    return runs


def ui_command(runs: Sequence[TrackedRun], port: int = 5000) -> str:
    """Return the address of MLflow's own comparison of the runs, or shell lines that open it if no server runs."""
    lines = []
    stores = list(dict.fromkeys(run.uri for run in runs))
    for number, uri in enumerate(stores):
        stored = [run for run in runs if run.uri == uri]
        query = f"runs={_json([r.run_id for r in stored])}"
        query += f"&experiments={_json(sorted({r.experiment_id for r in stored}))}"
        if uri.startswith(("http://", "https://")):
            lines.append(f"{without_credentials(uri).rstrip('/')}/#/compare-runs?{query}")
        else:
            lines.append(f"mlflow ui --backend-store-uri {shlex.quote(uri)} --port {port + number}")
            lines.append(f"# then open http://127.0.0.1:{port + number}/#/compare-runs?{query}")
    if len(stores) > 1:
        lines.append(
            "# MLflow compares runs of one store: train with one MLFLOW_TRACKING_URI to see all runs at once"
        )
    return "\n".join(lines)


def _json(values: list[str]) -> str:
    return quote(json.dumps(values, separators=(",", ":")), safe="[],")


def _locate(name: str, uri: str | None) -> list[tuple[str, str, str]]:
    """Return (tracking uri, run id, phase) of every run that a name stands for."""
    folder = Path(name)
    if RunFolder(folder).state.is_file():
        state = _state(folder)
        return [(uri or state["tracking_uri"], run_id, phase) for phase, run_id in state["phases"].items()]
    if RunFolder(folder.parent).state.is_file():
        state = _state(folder.parent)
        if folder.name in state["phases"]:
            return [(uri or state["tracking_uri"], state["phases"][folder.name], folder.name)]
        phases = ", ".join(state["phases"]) or "none yet"
        raise UserError(f"{folder.parent} has no tracked phase {folder.name!r}; it has {phases}")
    if uri := uri or os.environ.get("MLFLOW_TRACKING_URI"):
        return _phases_of(uri, name)
    raise UserError(
        f"no run {name!r}: give the --out folder of a training run, FOLDER/PHASE, "
        "or an MLflow run id together with --tracking-uri"
    )


def _state(folder: Path) -> dict[str, Any]:
    run = RunFolder(folder)
    path = run.state
    try:
        state = read_state(run)
        if "tracking_uri" not in state:
            raise UserError(f"{folder}: nothing was sent to MLflow yet; `xdub train` with --resume sends it")
        return {"tracking_uri": recorded_uri(run, state), "phases": dict(state["phases"])}
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__} {error}") from error


def _phases_of(uri: str, run_id: str) -> list[tuple[str, str, str]]:
    """Return the children of a parent run, or the run itself if it has none."""
    with _client(run_id, uri) as client:
        experiment = client.get_run(run_id).info.experiment_id
        children = client.search_runs(
            [experiment], f"tags.`mlflow.parentRunId` = '{run_id}'", order_by=["start_time"]
        )
        return [(uri, run.info.run_id, run.data.tags.get("phase", "")) for run in children] or [
            (uri, run_id, "")
        ]


@contextmanager
def _client(name: str, uri: str) -> Iterator[MlflowClient]:
    """Yield a client of the store; its failures become UserErrors of one line."""
    shown = without_credentials(uri)
    # Without this check MLflow would create an empty database.
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        raise UserError(
            f"run {name}: its tracking database {file} is gone; "
            "`xdub train` with --resume writes the runs again from their journals"
        )
    for variable, value in PATIENCE.items():
        os.environ.setdefault(variable, value)
    try:
        yield connect(uri)
    # The error may come from MLflow, or from the database or network below it.
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"run {name}: MLflow at {shown} does not return it ({reason})") from error


def _read(name: str, phase: str, uri: str, run_id: str) -> TrackedRun:
    with _client(name, uri) as client:
        run = client.get_run(run_id)
        losses = [metric for metric in sorted(run.data.metrics) if metric.startswith((TOTAL, LOSSES))]
        history = {
            metric: sorted(
                {point.step: point.value for point in client.get_metric_history(run_id, metric)}.items()
            )
            for metric in losses
        }
    curves = {
        metric: ([step for step, _ in points], [value for _, value in points])
        for metric, points in history.items()
        if BAND not in metric
    }
    # A phase with a single loss needs no curve of the total.
    if curves.get(TOTAL) == curves.get("loss/flow"):
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
    """Return loss -> (centres of its noise bands, mean of each over the last part of the run)."""
    last_step = max((step for points in history.values() for step, _ in points), default=0)
    bands: dict[str, tuple[list[float], list[float]]] = {}
    # The history is sorted by name, so the bands are in order.
    for metric, points in history.items():
        loss, is_band, number = metric.partition(BAND)
        late = [value for step, value in points if step > (1 - LAST_SHARE) * last_step]
        if is_band and late:
            levels, values = bands.setdefault(loss, ([], []))
            levels.append((int(number) + 0.5) / BANDS)
            values.append(sum(late) / len(late))
    return bands
