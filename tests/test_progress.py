"""Into a file or pipe, progress is a line now and then and one at the end; results alone go to stdout."""

from __future__ import annotations

from dataclasses import dataclass

from xdub import progress as module
from xdub.progress import progress, stage_progress


@dataclass
class Stage:
    title: str


def test_a_short_job_says_only_that_it_is_done(capsys):
    with progress("dubbing") as report:
        report(1, 2, "frames")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "dubbing: done in 0 s\n"


def test_a_long_job_says_now_and_then_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(module, "LINE_EVERY", 0.0)
    with progress("dubbing") as report:
        report(1, 4, "frames")
        report(2)
    assert capsys.readouterr().err.splitlines()[:2] == ["dubbing: 1 of 4 frames", "dubbing: 2"]


def test_a_long_line_stays_one_line(capsys, monkeypatch):
    monkeypatch.setattr(module, "LINE_EVERY", 0.0)
    with progress("making pairs") as report:
        report(1, 4, "workers " * 20)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_failed_job_does_not_say_that_it_is_done(capsys):
    try:
        with progress("dubbing"):
            raise RuntimeError
    except RuntimeError:
        pass
    assert capsys.readouterr().err == ""


def test_a_stage_ends_where_the_next_begins(capsys):
    with stage_progress() as on_stage:
        on_stage(Stage("generator"), 1, 2)(1, 10)
        on_stage(Stage("pairs"), 2, 2)(1, 10)
        assert capsys.readouterr().err == "1/2 generator: done in 0 s\n"
    assert capsys.readouterr().err == "2/2 pairs: done in 0 s\n"
