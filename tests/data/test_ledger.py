"""The ledger: every input ends in exactly one row."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from earlier_sets import write_earlier_set
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub.data import parts
from xdub.data.hash_index import HashIndex, text_hash
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


def expected_rows(events: list[tuple[str, LedgerRow | str]]) -> tuple[list[LedgerRow], list[bool], set[str]]:
    """Apply events by the rules, row by row: return the rows, what each `add` returned, and the settled inputs."""
    rows: dict[tuple[str, str], LedgerRow] = {}
    results, settled = [], set[str]()
    for kind, event in events:
        if isinstance(event, str):
            rows = {key: row for key, row in rows.items() if key[0] != event or row.status == "kept"}
            settled.discard(event)
            continue
        assert kind == "add"
        key, earlier = (event.input, event.clip_id), rows.get((event.input, event.clip_id))
        is_new = earlier is None or earlier.status == "failed"
        results.append(is_new)
        if event.status != "failed":
            settled.add(event.input)
        if is_new:
            whole = rows.get((event.input, ""))
            if event.status != "failed" and whole is not None and whole.status == "failed":
                del rows[event.input, ""]
            rows.pop(key, None)
            rows[key] = event
    return list(rows.values()), results, settled


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("reopen"), st.sampled_from("abc")),
        st.tuples(
            st.just("add"),
            st.builds(
                LedgerRow,
                input=st.sampled_from("abc"),
                clip_id=st.sampled_from(["", "1", "2"]),
                status=st.sampled_from(["kept", "rejected", "failed"]),
            ),
        ),
    ),
    max_size=25,
)


@settings(max_examples=30)
@given(events=EVENTS, every=st.integers(1, 6), fan=st.sampled_from([2, 100]))
def test_rows_and_settled_inputs_follow_the_rules_whenever_the_ledger_is_written_merged_and_read(
    events: list, every: int, fan: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "FAN", fan)
        ledger, results = Ledger(folder), []
        for number, (kind, event) in enumerate(events):
            if kind == "reopen":
                ledger.reopen(event)
            else:
                results.append(ledger.add(event))
            if number % every == 0:
                ledger.flush()
                ledger = Ledger(folder)
        rows, expected, settled = expected_rows(events)
        assert results == expected
        check(ledger, rows, settled)
        ledger.flush()
        ledger.parts.compact()
        check(Ledger(folder), rows, settled)


def check(ledger: Ledger, rows: list[LedgerRow], settled: set[str]) -> None:
    """Compare everything that a ledger returns with the rows."""

    def ordered(each: Iterable[LedgerRow]) -> list[LedgerRow]:
        return sorted(each, key=lambda row: (row.input, row.clip_id))

    assert ordered(ledger.rows()) == ordered(rows)
    assert {name for name in "abc" if ledger.settled(name)} == settled
    assert ledger.counts() == Counts.of(rows)
    own = [row for row in rows if row.input == "a"]
    assert ledger.counts({"a"}) == Counts.of(own) and ordered(ledger.lookup("a")) == ordered(own)


def test_the_index_of_a_ledger_takes_less_than_150_bytes_a_row() -> None:
    index, count = HashIndex(), 50_000
    tracemalloc.start()
    for number in range(count):
        index.set(text_hash(f"{number}.mp4"), 1 + number % 2)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # A ledger has an index of inputs and one of clips.
    assert 2 * size / count < 150 and len(index) == count
    assert [index.get(text_hash(f"{number}.mp4")) for number in (0, 1, count - 1, count)] == [1, 2, 2, 0]
