"""Markers of spare processes, and what a rank says when there can be none. test_run_ray.py has a run that uses them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from xdub.train.supervise import spares


def test_a_process_takes_one_marker_and_no_old_one(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"wanted-{number}").write_text("cpu")
    os.utime(tmp_path / "wanted-0", (0, time.time() - 2 * spares.FRESH_SECONDS))
    assert spares._take_marker(tmp_path) == "cpu"
    assert {path.name for path in tmp_path.iterdir()} == {"wanted-0", "wanted-2", f"spare-{os.getpid()}"}


def test_a_process_without_a_marker_is_no_spare(tmp_path: Path) -> None:
    assert spares._take_marker(tmp_path / "nothing") is None


def test_a_process_whose_marker_cannot_be_read_starts_all_the_same(monkeypatch, capsys) -> None:
    def fail() -> Path:
        raise PermissionError("the folder is another user's")

    monkeypatch.setattr(spares, "_folder", fail)
    spares.load_ahead()
    assert capsys.readouterr().err.count("\n") == 1


def test_spares_that_died_are_not_counted(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spares, "_folder", lambda: tmp_path)
    for pid in (os.getpid(), 2**22 + 1):  # Linux gives out no larger one
        (tmp_path / f"spare-{pid}").touch()
    assert spares.running() == [os.getpid()]
    with spares.Spares(2, "cpu", first=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_training_goes_on_without_spares_and_says_so_once(monkeypatch, capsys) -> None:
    asked = []

    def full(*arguments: object) -> None:
        asked.append(arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spares, "_become_rank", lambda: None)
    monkeypatch.setattr(spares, "keep", full)
    monkeypatch.setattr(spares, "DELAY_SECONDS", 0.0)
    monkeypatch.setattr(spares, "LOOK_SECONDS", 0.0)
    with spares.Spares(2, "cpu", first=True) as kept:
        for _ in range(3):
            kept.beat()
        kept._thread.join(5)
    assert asked == [(2, "cpu")]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no spare workers" in said and "No space left on device" in said


def test_processes_that_never_become_spares_are_not_asked_for_without_end(monkeypatch, capsys) -> None:
    asked = []
    monkeypatch.setattr(spares, "_become_rank", lambda: None)
    monkeypatch.setattr(spares, "keep", lambda *_: asked.append(1) or 2)
    monkeypatch.setattr(spares, "DELAY_SECONDS", 0.0)
    monkeypatch.setattr(spares, "LOOK_SECONDS", 0.0)
    with spares.Spares(2, "cpu", first=True) as kept:
        kept.beat()
        kept._thread.join(5)
    assert len(asked) == spares.ASKS + 1 and "Ray has started none" in capsys.readouterr().err


def test_a_ray_with_other_internals_costs_the_spares_and_nothing_else(monkeypatch, capsys) -> None:
    monkeypatch.setattr(spares, "_folder", lambda: object().session_dir)  # ty: ignore[unresolved-attribute]
    with spares.Spares(2, "cpu", first=True) as kept:
        kept.beat()
    assert kept._thread.ident is None and "AttributeError" in capsys.readouterr().err


@pytest.mark.parametrize(("first", "steps"), [(True, 0), (False, 2)])
def test_only_the_first_rank_asks_and_not_before_a_step(
    monkeypatch, tmp_path, first: bool, steps: int
) -> None:
    monkeypatch.setattr(spares, "_folder", lambda: tmp_path)
    with spares.Spares(2, "cpu", first=first) as kept:
        for _ in range(steps):
            kept.beat()
        assert kept._thread.ident is None
