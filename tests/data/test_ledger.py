"""Every input ends in exactly one row."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from xdub.data.ledger import Counts
from xdub.data.shards import Ledger, LedgerRow
from xdub.errors import UserError


def test_rows_survive_and_running_again_adds_nothing_twice(tmp_path: Path) -> None:
    for again in (False, True):
        with Ledger(tmp_path) as ledger:
            assert ledger.add(input="a.mp4", clip_id="1", status="kept", seconds=0.5) != again
            row = LedgerRow(input="b.mp4", status="rejected", check="identity", value=0.5, threshold=0.85)
            assert ledger.add(row) != again
    ledger = Ledger(tmp_path)
    assert len(ledger.rows()) == 2 and ledger.rows()[1] == row
    assert ledger.settled("a.mp4") and not ledger.settled("c.mp4")
    assert ledger.counts() == Counts({"kept": 1, "rejected": 1, "rejected:identity": 1})
    assert str(ledger.counts({"b.mp4"})) == "0 kept, 1 rejected, 0 failed"


def test_a_failed_input_is_replaced_when_it_is_tried_again(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add(input="a.mp4", status="failed", message="worker died")
        assert not ledger.settled("a.mp4")
    with Ledger(tmp_path) as ledger:
        assert ledger.add(input="a.mp4", clip_id="1", status="kept")
        assert ledger.add(input="a.mp4", clip_id="2", status="kept")
    assert [row.status for row in Ledger(tmp_path).rows()] == ["kept", "kept"]


def test_scores_survive_and_a_ledger_without_them_goes_on(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        row = LedgerRow(
            input="a",
            clip_id="1",
            status="rejected",
            check="identity",
            scores={"identity": 0.5, "seam": 1.25},
        )
        ledger.add(row)
    assert Ledger(tmp_path).rows() == [row]
    table = pq.read_table(tmp_path / "ledger.parquet").drop_columns(["scores"])
    pq.write_table(table, tmp_path / "ledger.parquet")
    with Ledger(tmp_path) as ledger:
        assert ledger.rows()[0].scores == {}
        ledger.add(input="b", status="kept", scores={"identity": 0.75})
    assert [row.scores for row in Ledger(tmp_path).rows()] == [{}, {"identity": 0.75}]


def test_an_unreadable_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match=r"ledger\.parquet: not a readable ledger"):
        Ledger(tmp_path)
