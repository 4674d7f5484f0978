"""MLflow runs: created once, continued after any restart, each metric point stored once, weights registered once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xdub.files.run_folder import RunFolder, StageFolder
from xdub.tracking.journal import Journal, Shipper
from xdub.tracking.runs import open_runs, read_state
from xdub.tracking.sink import MlflowSink, flatten
from xdub.tracking.store import own_uri


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=own_uri(RunFolder(tmp_path)))


def send(folder: Path, sink: MlflowSink) -> None:
    """Send all lanes now."""
    for lane in ("numbers", "files"):
        Shipper(StageFolder(folder), sink, lane).flush()


@pytest.fixture
def journal(tmp_path: Path):
    journal = Journal(StageFolder(tmp_path))
    yield journal
    journal.close()


def test_runs_are_created_once_and_continued(tmp_path: Path, client, journal: Journal) -> None:
    first = open_runs(RunFolder(tmp_path), "generator")
    journal.params({"train": {"lr": 0.1}, "name": "tiny"})
    journal.params({"name": "tiny"}, to="parent")
    journal.status("FAILED")
    send(tmp_path, MlflowSink(RunFolder(tmp_path), "generator"))
    assert client.get_run(first.child).info.status == client.get_run(first.parent).info.status == "FAILED"
    journal.status("RUNNING")
    journal.params({"train": {"lr": 0.2}, "name": "tiny"})
    again = MlflowSink(RunFolder(tmp_path), "generator")
    send(tmp_path, again)
    editor = open_runs(RunFolder(tmp_path), "editor")
    assert again.open() == first
    assert editor.parent == first.parent and editor.child != first.child
    assert read_state(RunFolder(tmp_path))["phases"] == {"generator": first.child, "editor": editor.child}
    run = client.get_run(first.child)
    assert run.info.status == "RUNNING"
    assert run.data.tags["mlflow.parentRunId"] == first.parent
    assert run.data.params == {"train.lr": "0.1", "name": "tiny"}
    assert run.data.tags["resumed.train.lr"] == "0.2"
    assert client.get_run(first.parent).data.params == {"name": "tiny"}


def test_a_run_whose_creation_got_no_answer_is_found_and_not_created_again(tmp_path: Path, client) -> None:
    runs = open_runs(RunFolder(tmp_path), "generator")
    state = json.loads(RunFolder(tmp_path).state.read_text())
    lost = {"key": state["key"], "phases": {}}  # the state before the request was sent
    RunFolder(tmp_path).state.write_text(json.dumps(lost))
    assert open_runs(RunFolder(tmp_path), "generator") == runs
    assert len(client.search_runs([runs.experiment])) == 2


def test_sending_twice_stores_once_and_artefacts_are_in_the_run_folder(
    tmp_path: Path, client, journal: Journal
) -> None:
    sink = MlflowSink(RunFolder(tmp_path), "generator")
    run_id = sink.open().child
    for step in range(1, 31):
        journal.metrics(step, {"train/loss": 1.0 / step, "loss/flow/t_bin_3": 0.5})
    strip = tmp_path / "strip.png"
    strip.write_bytes(b"png")
    journal.artifact(strip, "samples")
    for _ in range(2):
        send(tmp_path, sink)
        for offset in StageFolder(tmp_path).offsets:
            offset.unlink()
    history = client.get_metric_history(run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(step, 1.0 / step) for step in range(1, 31)]
    assert [file.path for file in client.list_artifacts(run_id, "samples")] == ["samples/strip.png"]
    assert list(RunFolder(tmp_path).artifacts.rglob("strip.png"))


def test_a_missing_file_and_a_name_that_mlflow_refuses_are_reported_and_block_no_other_record(
    tmp_path: Path, client, journal: Journal, capsys: pytest.CaptureFixture
) -> None:
    kept = tmp_path / "kept.png"
    kept.write_bytes(b"png")
    journal.artifact(tmp_path / "gone.png", "samples")
    journal.tags({"a tag that is far too long " * 40: "1"})
    journal.artifact(kept, "samples")
    journal.metrics(1, {"train/loss": 1.0})
    sink = MlflowSink(RunFolder(tmp_path), "generator")
    send(tmp_path, sink)
    send(tmp_path, sink)
    run_id = sink.open().child
    assert [file.path for file in client.list_artifacts(run_id, "samples")] == ["samples/kept.png"]
    assert client.get_run(run_id).data.metrics == {"train/loss": 1.0}
    message = capsys.readouterr().err
    assert message.count("gone.png is gone and was never sent") == 1
    assert message.count("MLflow refuses the tags") == 1


def test_weights_are_registered_once_by_their_address(tmp_path: Path, client, journal: Journal) -> None:
    sink = MlflowSink(RunFolder(tmp_path), "generator")
    weights = {"params": {"train": {"lr": 0.1}, "step": 8}, "tags": {"sha256": "abc", "step": "8"}}
    for _ in range(2):
        journal.model("xdub-tiny-generator", "file:///run/generator/export", **weights)
        send(tmp_path, sink)
        for offset in StageFolder(tmp_path).offsets:
            offset.unlink()
    (version,) = client.search_model_versions("name = 'xdub-tiny-generator'")
    assert version.run_id == sink.open().child and version.tags["sha256"] == "abc"
    assert version.source == version.tags["source"] == "file:///run/generator/export"
    (model,) = client.search_logged_models([sink.open().experiment])
    assert model.params == {"train.lr": "0.1", "step": "8"} and str(model.status) == "READY"
    journal.model(
        "xdub-tiny-generator", "file:///run/generator/export", params={}, tags={"sha256": "def", "step": "9"}
    )
    send(tmp_path, sink)
    assert len(client.search_model_versions("name = 'xdub-tiny-generator'")) == 2


def test_nested_values_become_dotted_params() -> None:
    assert dict(flatten({"a": {"b": {"c": 1}, "d": [2, 3]}, "e": None})) == {
        "a.b.c": 1,
        "a.d": [2, 3],
        "e": None,
    }


def test_a_tracker_that_starts_later_receives_all_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # no server listens at this port
    sink = MlflowSink(RunFolder(tmp_path), "generator")
    journal.metrics(1, {"train/loss": 1.0})
    with pytest.raises(Exception, match="Max retries|refused"):
        send(tmp_path, sink)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    journal.metrics(2, {"train/loss": 0.5})
    send(tmp_path, sink)
    from mlflow import MlflowClient

    run_id = read_state(RunFolder(tmp_path))["phases"]["generator"]
    history = MlflowClient(tracking_uri=own_uri(RunFolder(tmp_path))).get_metric_history(run_id, "train/loss")
    assert [point.step for point in history] == [1, 2]


def test_a_store_that_moved_has_the_same_runs_and_another_store_gets_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/first.db")
    runs = open_runs(RunFolder(tmp_path), "generator")
    (tmp_path / "moved.db").write_bytes((tmp_path / "first.db").read_bytes())
    for name, is_same in (("moved.db", True), ("another.db", False), ("first.db", True)):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/{name}")
        again = open_runs(RunFolder(tmp_path), "generator")
        assert again.uri.endswith(name)
        assert ((again.parent, again.child) == (runs.parent, runs.child)) == is_same
