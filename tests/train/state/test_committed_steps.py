"""Append-only files survive a kill at any byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdub.files.lines import LineFile, read_lines
from xdub.train.state.committed_steps import CommittedSteps, last_record


@given(cut=st.integers(0, 400))
def test_a_torn_line_is_dropped_and_writing_continues(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file.jsonl"
    file = LineFile(path)
    for number in range(20):
        file.append({"number": number})
    file.close()
    path.write_bytes(path.read_bytes()[:cut])
    whole = path.read_bytes().count(b"\n")
    file = LineFile(path)
    file.append({"number": -1})
    file.close()
    assert [record["number"] for record in read_lines(path)] == [*range(whole), -1]
    assert last_record(path) == {"number": -1}


def test_committed_steps_after_a_resume_hold_every_step_once(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    first = CommittedSteps(path, resume_at=0)
    for step in (1, 2, 3, 4, 5):
        first.append(step, step / 3, [f"clip{step}"], attempt=1)
    first.close()
    second = CommittedSteps(path, resume_at=3)
    for step in (4, 5, 6):
        second.append(step, step / 3, [f"clip{step}"], attempt=2)
    second.close()
    records = list(read_lines(path))
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record["attempt"] for record in records] == [1, 1, 1, 2, 2, 2]
    assert [float.fromhex(record["loss"]) for record in records] == [step / 3 for step in range(1, 7)]


def test_a_record_with_missing_steps_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    first = CommittedSteps(path, resume_at=0)
    first.append(1, 0.5, ["a"], attempt=1)
    first.close()
    with pytest.raises(ValueError, match=r"steps 1\.\.2 are not all in it"):
        CommittedSteps(path, resume_at=2)


def test_a_missing_file_has_no_last_record(tmp_path: Path) -> None:
    assert last_record(tmp_path / "nothing.jsonl") is None
