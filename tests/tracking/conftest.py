"""A run folder whose journal is sent as other processes would send it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from xdub.files.run_folder import RunFolder
from xdub.tracking.journal import Journal, Shipper
from xdub.tracking.runs import read_state
from xdub.tracking.sink import MlflowSink
from xdub.tracking.store import connect, own_uri, sqlite_uri


class Stored(NamedTuple):
    """Records of the phase `generator` and of its parent in MLflow."""

    points: dict[int, float]
    """step -> train/loss"""
    strips: list[str]
    status: str
    parent_params: dict[str, str]


class Tracking:
    """Tracking of run folders with the one phase `generator`."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def track(self, out: Path, *steps: int) -> MlflowSink:
        """Journal a run of some steps with a strip of the last one, and send it."""
        run = RunFolder(out)
        folder = run.phase("generator")
        (folder.path / "samples").mkdir(parents=True, exist_ok=True)
        if not run.state.is_file():
            # A copy is ten times faster than MLflow's migrations.
            shutil.copyfile(self._database, run.database)
        journal = Journal(folder)
        journal.status("RUNNING")
        journal.params({"lr": 0.1})
        journal.params({"name": "tiny"}, to="parent")
        for step in steps:
            journal.metrics(step, {"train/loss": 1.0 / step})
        strip = folder.path / "samples" / f"step{steps[-1]}.png"
        strip.write_bytes(b"png")
        journal.artifact(strip, "samples")
        journal.status("FINISHED")
        journal.close()
        return self.send(out)

    def send(self, out: Path) -> MlflowSink:
        """Send what was not sent, as another process would."""
        sink = MlflowSink(RunFolder(out), "generator")
        for lane in ("numbers", "files"):
            Shipper(RunFolder(out).phase("generator"), sink, lane).flush()
        return sink

    def stored(self, out: Path) -> Stored:
        """Read the runs from the database in the run folder."""
        state, client = read_state(RunFolder(out)), connect(own_uri(RunFolder(out)))
        child = state["phases"]["generator"]
        points = {point.step: point.value for point in client.get_metric_history(child, "train/loss")}
        strips = [file.path for file in client.list_artifacts(child, "samples")]
        run = client.get_run(child)
        assert run.data.tags["mlflow.parentRunId"] == state["parent"]
        return Stored(points, strips, run.info.status, client.get_run(state["parent"]).data.params)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a database without runs."""
    file = RunFolder(tmp_path_factory.mktemp("store")).database
    connect(sqlite_uri(file)).search_experiments()
    return file


@pytest.fixture
def tracking(database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tracking:
    """Return the tracking of a user without variables, in the folder `cwd`, which must stay empty."""
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return Tracking(database)
