"""Ingest: every source ends in the ledger, whatever happens to it, in this process and in Ray's actors."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from xdub.data.clip import Clip
from xdub.data.ingest import Prepare, ingest
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.testing import make_clip
from xdub.errors import UserError


def prepare(fixed: str = "") -> Prepare:
    """Return a function of a source's name. It is nested, so that actors need not import this file."""

    def prepare_one(source: str) -> Iterator[Clip | LedgerRow]:
        kind, number = source.split("-")
        if kind == "wav":
            raise UserError(f"{source}: no video in it")
        if kind == "bug":
            raise KeyError("oops")
        if kind == "crash" and not Path(fixed).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        for part in range(0 if kind == "empty" else 2):
            clip = make_clip(10 * int(number) + part, num_frames=5)
            yield clip
            yield LedgerRow(input=source, clip_id=clip.clip_id, status="kept", check="face", value=1.0)

    return prepare_one


def status(folder: Path) -> dict[str, list[str]]:
    statuses: dict[str, list[str]] = {}
    for row in Ledger(folder).rows():
        statuses.setdefault(row.input, []).append(row.status)
    return statuses


def test_every_source_ends_in_the_ledger_and_a_second_run_tries_only_failed_ones(tmp_path: Path) -> None:
    sources = ["ok-1", "wav-2", "bug-3", "empty-4", "ok-1", "ok-5"]
    reports = []
    result = ingest(
        sources,
        tmp_path,
        prepare(),
        workers=1,
        on_progress=lambda done, total=None, text="": reports.append((done, total, text)),
    )
    assert (result.clips, result.sources, result.settled) == (4, 5, 0)
    assert reports[0] == (1, 5, "ok-1") and reports[-1] == (5, 5, "ok-5")
    assert status(tmp_path) == {
        "ok-1": ["kept", "kept"],
        "wav-2": ["rejected"],
        "bug-3": ["failed"],
        "empty-4": ["rejected"],
        "ok-5": ["kept", "kept"],
    }
    digest = read_manifest(tmp_path, verify=True).digest
    called: list[str] = []
    prepare_one = prepare()

    def recorded(source: str) -> Iterable[Clip | LedgerRow]:
        called.append(source)
        return prepare_one(source)

    second = ingest(sources, tmp_path, recorded, workers=1)
    assert called == ["bug-3"] and second.clips == 0 and second.settled == 4
    assert read_manifest(tmp_path).digest == digest


def test_a_data_set_without_a_clip_is_refused_with_the_reason(tmp_path: Path) -> None:
    # The second call has no open source.
    for _ in range(2):
        with pytest.raises(UserError, match="no clip could be created; wav-1: no video in it"):
            ingest(["wav-1"], tmp_path, prepare())


@pytest.mark.slow
def test_ray_workers_write_the_same_data_set_and_a_crash_fails_its_source_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    sources = ["ok-1", "wav-2", "crash-3", "ok-4"]
    fixed = tmp_path / "fixed"
    first = ingest(sources, tmp_path / "ray", prepare(str(fixed)), workers=2)
    assert first.clips == 4 and status(tmp_path / "ray")["crash-3"] == ["failed"]
    # Ray's own messages are not shown.
    output = capfd.readouterr().err
    assert "INFO" not in output and "WARNING" not in output
    ingest([s for s in sources if s != "crash-3"], tmp_path / "local", prepare(str(fixed)), workers=1)
    assert read_manifest(tmp_path / "ray").ids == read_manifest(tmp_path / "local").ids
    fixed.touch()
    second = ingest(sources, tmp_path / "ray", prepare(str(fixed)), workers=1)
    assert second.clips == 2 and status(tmp_path / "ray")["crash-3"] == ["kept", "kept"]


def test_a_name_that_is_not_utf8_is_refused_before_any_work(tmp_path):
    bad = os.fsdecode(b"\xff.mp4")
    for sources, out in (([bad], tmp_path / "ds"), (["a.mp4"], tmp_path / bad)):
        with pytest.raises(UserError, match="not UTF-8 text; rename"):
            ingest(sources, out, lambda source: [], workers=1)
    assert not list(tmp_path.iterdir())


def test_rows_that_waited_for_a_flush_are_written_when_a_signal_ends_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(source: str) -> Iterator[Clip | LedgerRow]:
        if source == "stop-9":
            raise SystemExit(143)
        return prepare()(source)

    monkeypatch.setattr(Ledger, "flush_in_turn", lambda ledger: False)
    with pytest.raises(SystemExit):
        ingest(["ok-1", "wav-2", "stop-9"], tmp_path, stopped, workers=1)
    assert status(tmp_path) == {"ok-1": ["kept"] * 2, "wav-2": ["rejected"]}
