"""Tests of the progress display: a bar on a terminal, and a line every 20 s and at the end in a file or pipe."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from rich.console import Console

from xdub import progress as module
from xdub.progress import Rate, count, display, duration, progress, stage_progress


@dataclass
class Stage:
    """A stage of a run, with the only field that the display reads."""

    title: str


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stop the clock, and return a function that advances it by seconds."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_a_short_job_prints_only_that_it_is_done(capsys):
    with progress("dubbing") as report:
        report(1, 2, "frames")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "dubbing: done in 0 s\n"


def test_a_long_job_prints_a_line_every_twenty_seconds_with_the_time_left(capsys, clock):
    with progress("dubbing") as report:
        for done in range(1, 5):
            report(done, 10, "frames")
            clock(15)
        report(5)
    assert capsys.readouterr().err.splitlines() == [
        "dubbing: 3 of 10 frames, 1 min 45 s left",
        "dubbing: 5",
        "dubbing: done in 60 s",
    ]


def test_a_long_line_stays_one_line(capsys, monkeypatch):
    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)
    with progress("making pairs") as report:
        report(1, 4, "workers " * 20)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_failed_job_does_not_print_that_it_is_done(capsys):
    with contextlib.suppress(RuntimeError), progress("dubbing"):
        raise RuntimeError
    assert capsys.readouterr().err == ""


def test_the_line_of_a_stage_ends_when_the_next_stage_begins(capsys):
    with stage_progress() as on_stage:
        on_stage(Stage("generator"), 1, 2)(1, 10)
        on_stage(Stage("pairs"), 2, 2)(1, 10)
        assert capsys.readouterr().err == "1/2 generator: done in 0 s\n"
    assert capsys.readouterr().err == "2/2 pairs: done in 0 s\n"


def test_the_bar_of_a_terminal_shows_count_text_and_time_left(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    text = io.StringIO()
    with display(Console(file=text, force_terminal=True, width=120), "dubbing") as report:
        report(1, 3, "frames")
        clock(10)
        report(2, 3, "frames")
    assert "2/3" in text.getvalue() and "frames, 10 s left" in text.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    text = io.StringIO()
    with display(Console(file=text, force_terminal=True, width=120), "dubbing") as report:
        clock(30)
        report(2, 3, "frames")
    assert "2 of 3" in text.getvalue()


def test_the_speed_is_measured_over_the_last_minute(clock):
    rate = Rate()
    rate.add(0)
    clock(600)
    for done in range(1, 8):
        rate.add(done)
        clock(10)
    assert rate.per_second == pytest.approx(0.1) and rate.seconds_left(7, 10) == pytest.approx(30)
    assert rate.seconds_left(7, None) is None and Rate().seconds_left(0, 10) is None


def test_counts_are_printed_with_the_total_if_it_is_given():
    assert [count(3, 10), count(2.5, None), count(1_234_567, 2_000_000)] == [
        "3 of 10",
        "2.5",
        "1234567 of 2000000",
    ]


def test_durations_are_printed_in_seconds_minutes_or_hours():
    assert [duration(s) for s in (1.23, 45, 200, 3840)] == ["1.2 s", "45 s", "3 min 20 s", "1 h 04 min"]
