"""The quarantine file lists each clip once, with its shard and reason, over restarts and torn lines."""

from __future__ import annotations

import json
from pathlib import Path

from xdub.data.quarantine import BadRow, Quarantine

ROW = BadRow("UserError: damaged row", "/ds/shard-00003.parquet", 1)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_without_bad_rows_no_file_is_created(tmp_path: Path) -> None:
    Quarantine(tmp_path / "bad.jsonl").note({}, 3)
    assert not list(tmp_path.iterdir())


def test_each_clip_is_listed_once_with_the_first_step_that_read_it(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    quarantine = Quarantine(path)
    quarantine.note({"a": ROW}, 3)
    quarantine.note({"a": ROW, "b": ROW._replace(epoch=2)}, 5)
    Quarantine(path).note({"a": ROW, "c": ROW}, 9)
    assert [(row["clip_id"], row["step"]) for row in lines(path)] == [("a", 3), ("b", 5), ("c", 9)]
    assert lines(path)[1] == {
        "clip_id": "b",
        "shard": "/ds/shard-00003.parquet",
        "error": "UserError: damaged row",
        "epoch": 2,
        "step": 5,
    }


def test_a_torn_last_line_is_dropped_and_its_clip_listed_again(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    Quarantine(path).note({"a": ROW, "b": ROW}, 1)
    path.write_bytes(path.read_bytes()[:-9])
    Quarantine(path).note({"b": ROW}, 2)
    assert [(row["clip_id"], row["step"]) for row in lines(path)] == [("a", 1), ("b", 2)]
