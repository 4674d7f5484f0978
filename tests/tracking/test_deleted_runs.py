"""Runs that were deleted in MLflow, temporarily or for good, are created again with everything."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from xdub.files.run_folder import RunFolder
from xdub.tracking.runs import RunIds
from xdub.tracking.stage_tracker import StageTracker
from xdub.tracking.store import connect, own_uri, sqlite_file


def delete_phase(ids: RunIds) -> None:
    """Delete the phase's run as MLflow's page does."""
    connect(ids.uri).delete_run(ids.child)


def delete_parent(ids: RunIds) -> None:
    """Delete the run above the phases only."""
    connect(ids.uri).delete_run(ids.parent)


def delete_experiment(ids: RunIds) -> None:
    """Delete the experiment with all of its runs."""
    connect(ids.uri).delete_experiment(ids.experiment)


def remove_for_good(ids: RunIds) -> None:
    """Remove the phase's rows, as `mlflow gc` does."""
    file = sqlite_file(ids.uri)
    assert file is not None
    with sqlite3.connect(file) as database:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"delete from {table} where run_uuid = ?", (ids.child,))
    database.close()


@pytest.mark.parametrize("delete", [delete_phase, delete_parent, delete_experiment, remove_for_good])
def test_a_deleted_run_is_created_again_with_everything(
    tracking, delete: Callable[[RunIds], None], tmp_path: Path
) -> None:
    ids = tracking.track(tmp_path, 1, 2, 3).open()
    began = connect(ids.uri).get_run(ids.child).info.start_time
    delete(ids)
    again = tracking.track(tmp_path, 4).open()
    points, strips, status, params = tracking.stored(tmp_path)
    assert (sorted(points), status, params) == ([1, 2, 3, 4], "FINISHED", {"name": "tiny"})
    assert strips == ["samples/step3.png", "samples/step4.png"]
    assert (again.child == ids.child) == (delete is delete_parent)
    info = connect(again.uri).get_run(again.child).info
    assert abs(info.start_time - began) < 1000 and info.end_time >= info.start_time


def test_a_removed_database_is_written_again(tracking, tmp_path: Path) -> None:
    tracking.track(tmp_path, 1, 2, 3)
    RunFolder(tmp_path).database.rename(tmp_path / "removed.db")
    tracking.track(tmp_path, 4)
    points, strips, status, params = tracking.stored(tmp_path)
    assert (sorted(points), status, params) == ([1, 2, 3, 4], "FINISHED", {"name": "tiny"})
    assert len(strips) == 2


def test_a_run_that_is_deleted_while_it_trains_is_created_again(tracking, tmp_path: Path) -> None:
    sink = tracking.track(tmp_path, 1, 2, 3)
    connect(own_uri(RunFolder(tmp_path))).delete_run(sink.open().child)
    record = {"kind": "metrics", "step": 4, "time_ms": 4, "values": {"train/loss": 0.2}}
    tags = {"kind": "tags", "values": {"world_size": "2"}}
    for refused in (record, tags):
        with pytest.raises(Exception, match="must be in the 'active' state"):
            sink([refused])
        sink.open()
        connect(own_uri(RunFolder(tmp_path))).delete_run(sink.open().child)
    tracking.send(tmp_path)
    assert sorted(tracking.stored(tmp_path)[0]) == [1, 2, 3]


def test_a_finished_stage_whose_run_was_deleted_is_sent_again(tracking, tmp_path: Path) -> None:
    ids = tracking.track(tmp_path, 1, 2, 3).open()
    delete_phase(ids)
    StageTracker(RunFolder(tmp_path), "generator", RunFolder(tmp_path).phase("generator")).send_rest()
    points, strips, status, _ = tracking.stored(tmp_path)
    assert (sorted(points), strips, status) == ([1, 2, 3], ["samples/step3.png"], "FINISHED")


def test_the_offset_of_an_earlier_version_counts_for_the_run_that_it_was_written_for(
    tracking, tmp_path: Path
) -> None:
    tracking.track(tmp_path, 1, 2, 3)
    folder = RunFolder(tmp_path).phase("generator")
    for offset in folder.offsets:
        offset.write_text(offset.read_text().split()[0])
    connect(own_uri(RunFolder(tmp_path))).set_terminated(tracking.send(tmp_path).open().child, "KILLED")
    tracking.send(tmp_path)
    assert tracking.stored(tmp_path)[2] == "KILLED"
    delete_phase(tracking.send(tmp_path).open())
    tracking.send(tmp_path)
    assert tracking.stored(tmp_path)[0].keys() == {1, 2, 3} and tracking.stored(tmp_path)[2] == "FINISHED"
