"""Seconds by stage: inner stages do not count for outer ones, and the last row of a source has all."""

from __future__ import annotations

import pytest

from xdub.data import stage_clock
from xdub.data.ledger import LedgerRow
from xdub.data.stage_clock import StageClock
from xdub.data.testing import make_clip


@pytest.fixture
def wait(monkeypatch):
    """Return a function that lets seconds pass, of which cores work for a half."""
    now = [0.0]

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(stage_clock.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(stage_clock.time, "process_time", lambda: now[0] / 2)
    return pass_time


def test_the_last_row_of_a_source_has_the_seconds_of_each_stage(wait):
    clock = StageClock()

    def frames():
        for _ in range(4):
            wait(0.25)
            yield None

    def results():
        wait(8)
        with clock("track"):
            for _ in clock.timed("decode", frames()):
                wait(0.5)
        clock.footage = 0.16
        yield make_clip(0)
        yield LedgerRow(input="a", status="kept")
        clock.deadline.decoding += 3.0

    for _ in range(2):
        items = []
        for item in clock.record(results()):
            items.append(item)
            wait(16)
        assert len(items) == 2
        assert items[1].scores == {
            "footage": 0.16,
            **{"seconds.other": 8.0, "seconds.track": 2.0, "seconds.decode": 1.0, "seconds.encode": 16.0},
            **{"cores.other": 4.0, "cores.track": 1.0, "cores.decode": 3.5, "cores.encode": 8.0},
        }


def test_a_reader_that_stops_early_closes_the_frames():
    closed = []

    def frames():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    timed = StageClock().timed("decode", frames())
    assert next(timed) == 1
    timed.close()
    assert closed == [True]
