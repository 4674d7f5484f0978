"""The ledger: every input ends in exactly one row."""

from __future__ import annotations

from pathlib import Path

import pytest
from earlier_sets import write_earlier_set

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
    assert list(ledger.rows()) == [kept, rejected]
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


def test_scores_survive_and_a_ledger_without_them_is_continued(tmp_path: Path) -> None:
    scores = {"identity": 0.5, "seam": 1.25}
    with Ledger(tmp_path) as ledger:
        row = LedgerRow(input="a", clip_id="1", status="rejected", check="identity", scores=scores)
        ledger.add(row)
    assert list(Ledger(tmp_path).rows()) == [row]
    write_earlier_set(tmp_path / "old", [], [row], scores=False)
    with Ledger(tmp_path / "old") as ledger:
        assert next(ledger.rows()).scores == {} and ledger.settled("a")
        ledger.add(LedgerRow(input="b", status="kept", scores={"identity": 0.75}))
    assert [row.scores for row in Ledger(tmp_path / "old").rows()] == [{}, {"identity": 0.75}]


def test_an_unreadable_ledger_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match=r"ledger\.parquet: not a readable ledger"):
        Ledger(tmp_path)
