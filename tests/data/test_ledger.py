"""The ledger: every input ends in exactly one row."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
import pytest

from xdub.data.ledger import Counts, Ledger, LedgerRow
from xdub.errors import UserError


def test_rows_survive_and_a_second_run_adds_none_twice(tmp_path: Path) -> None:
    kept = LedgerRow(input="a.mp4", clip_id="1", status="kept", seconds=0.5)
    rejected = LedgerRow(input="b.mp4", status="rejected", check="identity", value=0.5, threshold=0.85)
    for repeated in (False, True):
        with Ledger(tmp_path) as ledger:
            assert ledger.add(kept) != repeated
            assert ledger.add(rejected) != repeated
    ledger = Ledger(tmp_path)
    assert ledger.rows() == [kept, rejected]
    assert ledger.settled("a.mp4") and not ledger.settled("c.mp4")
    assert ledger.counts() == Counts({"kept": 1, "rejected": 1, "rejected:identity": 1})
    assert str(ledger.counts({"b.mp4"})) == "0 kept, 1 rejected, 0 failed"


def test_the_row_of_a_failed_input_is_replaced_by_the_next_attempt(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add(LedgerRow(input="a.mp4", status="failed", message="worker died"))
        assert not ledger.settled("a.mp4")
    with Ledger(tmp_path) as ledger:
        assert not ledger.settled("a.mp4")
        assert ledger.add(LedgerRow(input="a.mp4", clip_id="1", status="kept"))
        assert ledger.add(LedgerRow(input="a.mp4", clip_id="2", status="kept"))
        assert ledger.settled("a.mp4")
    assert [row.status for row in Ledger(tmp_path).rows()] == ["kept", "kept"]


class CountedName(str):
    """A name that counts its comparisons with other names."""

    comparisons: ClassVar[int] = 0

    def __eq__(self, other: object) -> bool:
        CountedName.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_the_work_to_find_open_inputs_grows_linearly_with_the_ledger(tmp_path: Path) -> None:
    ledger, count = Ledger(tmp_path), 2000
    for number in range(count):
        ledger.add(LedgerRow(input=CountedName(f"{number}.mp4"), status="kept"))
    CountedName.comparisons = 0
    names = [f"{number}.mp4" for number in range(2 * count)]
    assert sum(map(ledger.settled, names)) == count
    assert CountedName.comparisons < 3 * len(names)


def test_scores_survive_and_a_ledger_without_them_is_continued(tmp_path: Path) -> None:
    scores = {"identity": 0.5, "seam": 1.25}
    with Ledger(tmp_path) as ledger:
        row = LedgerRow(input="a", clip_id="1", status="rejected", check="identity", scores=scores)
        ledger.add(row)
    assert Ledger(tmp_path).rows() == [row]
    table = pq.read_table(tmp_path / "ledger.parquet").drop_columns(["scores"])
    pq.write_table(table, tmp_path / "ledger.parquet")
    with Ledger(tmp_path) as ledger:
        assert ledger.rows()[0].scores == {}
        ledger.add(LedgerRow(input="b", status="kept", scores={"identity": 0.75}))
    assert [row.scores for row in Ledger(tmp_path).rows()] == [{}, {"identity": 0.75}]


def test_an_unreadable_ledger_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match=r"ledger\.parquet: not a readable ledger"):
        Ledger(tmp_path)


def test_flushes_in_turn_do_not_cost_the_square_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = pq.write_table

    def slow(table: object, path: Path) -> None:
        written.append(table.num_rows)
        time.sleep(0.02)
        write(table, path)

    monkeypatch.setattr(pq, "write_table", slow)
    ledger = Ledger(tmp_path)
    for n in range(50):
        ledger.add(LedgerRow(input=f"{n}.mp4", status="rejected", check="readable"))
        ledger.flush_in_turn()
    assert written[0] == 1 and len(written) <= 3 and ledger.changed
    ledger.flush()
    assert len(Ledger(tmp_path).rows()) == 50
