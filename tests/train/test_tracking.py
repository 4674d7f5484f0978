"""MLflow runs: made once, continued after any restart, each metric point stored once."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdub.train.journal import Journal, Shipper
from xdub.train.tracking import MlflowSink, default_uri, finish_run, flatten, open_runs, read_state


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=default_uri(tmp_path))


def test_runs_are_made_once_and_continued(tmp_path: Path, client) -> None:
    first = open_runs(tmp_path, "generator", {"train": {"lr": 0.1}, "name": "tiny"})
    finish_run(tmp_path, "generator", "FAILED")
    again = open_runs(tmp_path, "generator", {"train": {"lr": 0.2}, "name": "tiny"})
    editor = open_runs(tmp_path, "editor", {"name": "tiny"})
    assert first == again
    assert editor.parent == first.parent and editor.child != first.child
    assert read_state(tmp_path)["phases"] == {"generator": first.child, "editor": editor.child}
    run = client.get_run(first.child)
    assert run.info.status == "RUNNING"
    assert run.data.tags["mlflow.parentRunId"] == first.parent
    assert run.data.params == {"train.lr": "0.1", "name": "tiny"}
    assert run.data.tags["resumed.train.lr"] == "0.2"


def test_sending_twice_stores_once_and_artefacts_lie_in_the_run_folder(tmp_path: Path, client) -> None:
    sink = MlflowSink(tmp_path, "generator", {})
    sink.open()
    run_id = read_state(tmp_path)["phases"]["generator"]
    journal = Journal(tmp_path / "journal.jsonl")
    for step in range(1, 31):
        journal.metrics(step, {"train/loss": 1.0 / step, "loss/flow/t_bin_3": 0.5})
    strip = tmp_path / "strip.png"
    strip.write_bytes(b"png")
    journal.artifact(strip, "samples")
    journal.close()
    for _ in range(2):
        Shipper(journal.path, sink).flush()
        journal.path.with_suffix(".offset").unlink()
    history = client.get_metric_history(run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(step, 1.0 / step) for step in range(1, 31)]
    assert [file.path for file in client.list_artifacts(run_id, "samples")] == ["samples/strip.png"]
    assert list((tmp_path / "mlartifacts").rglob("strip.png"))


def test_nested_values_become_dotted_params() -> None:
    assert dict(flatten({"a": {"b": {"c": 1}, "d": [2, 3]}, "e": None})) == {
        "a.b.c": 1,
        "a.d": [2, 3],
        "e": None,
    }


def test_a_tracker_that_comes_up_later_gets_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    sink = MlflowSink(tmp_path, "generator", {"name": "tiny"})
    journal = Journal(tmp_path / "journal.jsonl")
    journal.metrics(1, {"train/loss": 1.0})
    with pytest.raises(Exception, match="Max retries|refused"):
        Shipper(journal.path, sink).flush()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    journal.metrics(2, {"train/loss": 0.5})
    Shipper(journal.path, sink).flush()
    from mlflow import MlflowClient

    run_id = read_state(tmp_path)["phases"]["generator"]
    history = MlflowClient(tracking_uri=default_uri(tmp_path)).get_metric_history(run_id, "train/loss")
    assert [point.step for point in history] == [1, 2]
