"""Training with an MLflow server that dies or hangs, with a locked store, and without a server."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from perf.system.mlflow_server import MlflowServer
from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder, RunFolder
from xdub.tracking import stage_tracker as tracked
from xdub.tracking.journal import pending_bytes
from xdub.tracking.runs import read_state
from xdub.tracking.store import own_uri
from xdub.train.run import train_phase

STEPS = ("train.steps=40", "train.log_every=1", "train.checkpoint_every=40", "train.sample_every=1")


def quiet(progress) -> None:
    """Show no progress."""


class ActionSampler:
    """Sampler that calls functions at certain steps, in the thread of the training loop."""

    def __init__(self, actions: dict) -> None:
        self.actions, self.step = actions, 0

    def __call__(self, model, context) -> np.ndarray:
        self.step += 1
        time.sleep(0.05)
        self.actions.get(self.step, lambda: None)()
        return np.zeros((2, 2, 3), np.uint8)


def assert_all_sent(out: Path, uri: str) -> None:
    """Check that two runs hold all records of the journal once, and that the registry holds the weights."""
    from mlflow import MlflowClient

    client, state = MlflowClient(tracking_uri=uri), read_state(RunFolder(out))
    run_id = state["phases"]["generator"]
    assert pending_bytes(PhaseFolder(out, "generator")) == 0
    expected: dict[str, list[tuple]] = {}
    for record in read_lines(PhaseFolder(out, "generator").journal):
        if record["kind"] == "metrics":
            for name, value in record["values"].items():
                expected.setdefault(name, []).append((record["step"], value))
    assert len(expected["train/loss"]) == 40
    for name, points in expected.items():
        assert sorted((p.step, p.value) for p in client.get_metric_history(run_id, name)) == points, name
    statuses = {run.info.run_id: run.info.status for run in client.search_runs([state["experiment_id"]])}
    assert statuses == {state["parent"]: "FINISHED", run_id: "FINISHED"}
    (version,) = client.search_model_versions(f"name = 'xdub-tiny-generator' and run_id = '{run_id}'")
    assert version.tags["step"] == "40"
    files = {file.path for folder in ("config", "data") for file in client.list_artifacts(run_id, folder)}
    assert files == {"config/recipe.yaml", "data/data.json"}
    assert len(client.list_artifacts(run_id, "samples")) == 40
    assert [file.path for file in client.list_artifacts(state["parent"], "config")] == ["config/recipe.yaml"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path / "server")
    server.start()
    server.wait()
    yield server
    server.kill()


@pytest.mark.slow(seconds=20)
def test_a_server_that_hangs_and_later_dies_for_a_while_has_all_records_at_the_end(
    small, clips, tmp_path: Path, server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    out, events = tmp_path / "run", {8: server.hang, 16: server.go_on, 24: server.kill, 34: server.start}
    result = train_phase(
        "generator",
        small(*STEPS),
        clips,
        out,
        local=True,
        progress=quiet,
        sampler=ActionSampler(events),
    )
    assert result.status == "finished"
    server.wait()  # on a busy machine the server may start only now
    train_phase("generator", small(*STEPS), clips, out, local=True, resume=True, progress=quiet)
    assert_all_sent(out, server.uri)


@pytest.mark.slow
def test_a_phase_trains_without_a_server_and_a_later_resume_sends_its_records(
    small, clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    server, out = MlflowServer(tmp_path / "server"), tmp_path / "run"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    begin = time.monotonic()
    train_phase("generator", small(*STEPS), clips, out, local=True, progress=quiet, sampler=ActionSampler({}))
    assert time.monotonic() - begin < 60
    message = capsys.readouterr().err
    assert "tracking is not reachable" in message and "with --resume) sends the rest" in message
    try:
        server.start()
        server.wait()
        train_phase("generator", small(*STEPS), clips, out, local=True, resume=True, progress=quiet)
        assert_all_sent(out, server.uri)
    finally:
        server.kill()


@pytest.mark.slow
def test_a_locked_database_delays_neither_start_nor_end(
    small, clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tracked, "OPEN_SECONDS", 0.5)
    monkeypatch.setattr(tracked, "FLUSH_SECONDS", 0.5)
    out = tmp_path / "run"
    out.mkdir()
    lock = sqlite3.connect(RunFolder(out).database, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    train_phase("generator", small(*STEPS), clips, out, local=True, progress=quiet, sampler=ActionSampler({}))
    assert "tracking is not reachable (no answer within 0.5 s)" in capsys.readouterr().err
    lock.rollback()
    lock.close()
    monkeypatch.setattr(tracked, "FLUSH_SECONDS", 100.0)
    train_phase("generator", small(*STEPS), clips, out, local=True, resume=True, progress=quiet)
    assert_all_sent(out, own_uri(RunFolder(out)))
