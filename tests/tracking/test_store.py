"""The store of a run: any folder name, a folder that was moved or copied, another server, an experiment of the user."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from xdub.errors import UserError
from xdub.files.run_folder import RunFolder
from xdub.tracking import store
from xdub.tracking.read import read_runs, ui_command
from xdub.tracking.runs import open_runs
from xdub.tracking.store import connect, own_uri, sqlite_file, sqlite_uri, without_credentials

NAMES = [
    "q?a",
    "h#a",
    "100%",
    "%3Fa%252e",
    "blank 'quote\"",
    "a:b",
    "[x]{y}",
    "-dash",
    "back\\slash",
    "new\nline",
    "é漢🎬",
    "漢" * 80,
]


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", NAMES)
def test_the_address_of_a_database_names_its_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / name / "runs.db"
    assert sqlite_file(sqlite_uri(file)) == file


def test_a_plain_address_is_unchanged_and_other_stores_have_no_file() -> None:
    assert sqlite_uri(Path("/runs/my run/a.db")) == "sqlite:////runs/my run/a.db"
    assert sqlite_file("http://127.0.0.1:5000") is sqlite_file("sqlite:///:memory:") is None
    assert without_credentials("https://me:secret@host:5000/x") == "https://host:5000/x"
    assert without_credentials("sqlite:////runs/a@b/a.db") == "sqlite:////runs/a@b/a.db"


def test_a_run_folder_of_any_name_holds_all_of_its_tracking(tracking, tmp_path: Path) -> None:
    out = tmp_path / "q?a #%41[x]" / "new\nline" / "run"
    tracking.track(out, 1, 2, 3)
    assert tracking.stored(out) == (
        {1: 1.0, 2: 0.5, 3: 1 / 3},
        ["samples/step3.png"],
        "FINISHED",
        {"name": "tiny"},
    )
    outside = {name for name in tree(tmp_path) if not name.startswith("q?a #%41[x]")}
    assert outside == {"cwd"}
    assert len(list((tmp_path / "q?a #%41[x]").iterdir())) == 1
    (run,) = read_runs([str(out)])
    assert run.metrics["train/loss"] == pytest.approx(1 / 3)
    assert f"'{run.uri}'" in ui_command([run])


@pytest.mark.parametrize("old_place", ["gone", "another run", "the original"])
def test_a_run_that_was_moved_or_copied_is_tracked_where_it_is_now(
    tracking, old_place: str, tmp_path: Path
) -> None:
    old, new = tmp_path / "run", tmp_path / "run#2"
    tracking.track(old, 1, 2, 3)
    if old_place == "the original":
        shutil.copytree(old, new)
    else:
        old.rename(new)
    if old_place == "another run":
        tracking.track(old, 1)
    before = {path: path.stat().st_mtime_ns for path in old.rglob("*")}
    tracking.track(new, 4, 5)
    points, strips, status, params = tracking.stored(new)
    assert (sorted(points), status, params) == ([1, 2, 3, 4, 5], "FINISHED", {"name": "tiny"})
    assert strips == ["samples/step3.png", "samples/step5.png"]
    assert {path: path.stat().st_mtime_ns for path in old.rglob("*")} == before
    assert sorted(read_runs([str(new)])[0].curves["train/loss"][0]) == [1, 2, 3, 4, 5]
    assert tree(tmp_path / "cwd") == set()


def test_a_moved_run_is_read_at_its_new_place_before_it_continues(tracking, tmp_path: Path) -> None:
    tracking.track(tmp_path / "run", 1, 2, 3)
    (tmp_path / "run").rename(tmp_path / "moved")
    tracking.track(tmp_path / "run", 1)
    (run,) = read_runs([str(tmp_path / "moved")])
    assert sqlite_file(run.uri) == RunFolder(tmp_path / "moved").database
    assert list(run.curves["train/loss"][0]) == [1, 2, 3]


def test_another_address_gets_new_runs_with_everything_and_the_first_its_own_again(
    tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    first = tracking.track(out, 1, 2, 3).open()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    second = tracking.track(out, 4).open()
    client = connect(f"sqlite:///{tmp_path}/other.db")
    assert [p.step for p in client.get_metric_history(second.child, "train/loss")] == [1, 2, 3, 4]
    assert client.get_run(second.parent).data.params == {"name": "tiny"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own_uri(RunFolder(out)))
    third = tracking.send(out).open()
    assert (third.parent, third.child) == (first.parent, first.child)
    assert sorted(tracking.stored(out)[0]) == [1, 2, 3, 4]


def test_the_environment_names_the_experiment(
    tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "dubbing/ablation")
    ids = open_runs(RunFolder(tmp_path), "generator")
    client = connect(ids.uri)
    assert client.get_experiment(ids.experiment).name == "dubbing/ablation"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "later")
    assert open_runs(RunFolder(tmp_path), "editor").experiment == ids.experiment
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ids.uri)
    number = client.create_experiment("by number")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)
    (tmp_path / "b").mkdir()
    assert open_runs(RunFolder(tmp_path / "b"), "generator").experiment == number
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="MLFLOW_EXPERIMENT_ID=77"):
        open_runs(RunFolder(tmp_path / "c"), "generator")


def test_a_name_that_no_database_can_have_is_an_error_with_the_fix(tracking, tmp_path: Path) -> None:
    long = tmp_path / ("n" * 240) / ("m" * 240)
    with pytest.raises(UserError, match=r"bytes, SQLite opens 500; .*MLFLOW_TRACKING_URI"):
        own_uri(RunFolder(long))
    with pytest.raises(UserError, match="not UTF-8"):
        own_uri(RunFolder(tmp_path / os.fsdecode(b"caf\xe9")))


def test_a_run_that_was_never_sent_is_an_error_with_the_fix(
    tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(Exception, match="Max retries|refused"):
        tracking.track(tmp_path / "run", 1)
    with pytest.raises(UserError, match="nothing was sent to MLflow yet"):
        read_runs([str(tmp_path / "run")])


def test_a_database_that_cannot_be_opened_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database" * 100)
    for file in (tmp_path, tmp_path / "text", tmp_path / "text" / "runs.db"):
        with pytest.raises(UserError, match="SQLite cannot open it"):
            connect(f"sqlite:///{file}")
    for uri in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(UserError, match="ends with its process"):
            connect(uri)


def test_an_interrupted_creation_of_a_database_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    # The process creates the tables once.
    store._empty_database.cache_clear()
    monkeypatch.setattr(mlflow.MlflowClient, "search_experiments", interrupted)
    with pytest.raises(KeyboardInterrupt):
        connect(sqlite_uri(tmp_path / "runs.db"))
    assert tree(tmp_path) == set()


def test_databases_of_one_process_share_no_runs_although_their_tables_are_created_once(
    tmp_path: Path,
) -> None:
    first = connect(sqlite_uri(tmp_path / "a" / "runs.db"))
    created = store._empty_database.cache_info().misses
    second = connect(sqlite_uri(tmp_path / "b" / "runs.db"))
    assert store._empty_database.cache_info().misses == created
    first.create_experiment("one")
    names = [{each.name for each in client.search_experiments()} for client in (first, second)]
    assert names == [{"Default", "one"}, {"Default"}]


def test_a_damaged_record_of_the_runs_is_one_line(tmp_path: Path) -> None:
    RunFolder(tmp_path).state.write_text('{"key": ')
    for read in (lambda: open_runs(RunFolder(tmp_path), "generator"), lambda: read_runs([str(tmp_path)])):
        with pytest.raises(UserError, match="is damaged") as caught:
            read()
        assert "\n" not in str(caught.value) and "UserError" not in str(caught.value)


@pytest.mark.parametrize("variable", ["NAME", "ID"])
def test_the_default_experiment_writes_nothing_outside_of_the_run(
    tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(f"MLFLOW_EXPERIMENT_{variable}", {"NAME": "Default", "ID": "0"}[variable])
    if variable == "ID":
        with pytest.raises(UserError, match="set MLFLOW_EXPERIMENT_NAME"):
            tracking.track(tmp_path, 1)
    else:
        tracking.track(tmp_path, 1)
        assert list(RunFolder(tmp_path).artifacts.rglob("step1.png"))
    assert tree(tmp_path / "cwd") == set()


def test_a_file_system_that_refuses_chmod_receives_the_strips(
    tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    tracking.track(tmp_path / "run", 1, 2, 3)
    assert tracking.stored(tmp_path / "run").strips == ["samples/step3.png"]
