"""Ingest: every source ends in the ledger, whatever happens to it, in this process and in workers of the pool."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from xdub.data.clip import Clip
from xdub.data.columns import Shard
from xdub.data.ingest import ingest
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.manifest_files import write_head
from xdub.data.shard_files import write_shard
from xdub.data.source_worker import Prepare
from xdub.data.testing import make_clip
from xdub.errors import UserError
from xdub.files.storage import Location


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
        prepare,
        workers=1,
        on_progress=lambda done, total=None, text="": reports.append((done, total, text)),
    )
    assert (result.clips, result.sources, result.settled) == (4, 5, 0)
    assert reports[0][:2] == (0, 5) and reports[-1][:2] == (5, 5)
    assert reports[-1][2].startswith("4 kept, 2 rejected, 1 failed") and "worker s each" in reports[-1][2]
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

    second = ingest(sources, tmp_path, lambda: recorded, workers=1)
    assert called == ["bug-3"] and second.clips == 0 and second.settled == 4
    assert read_manifest(tmp_path).digest == digest


def test_a_data_set_without_a_clip_is_refused_with_the_reason(tmp_path: Path) -> None:
    # The second call has no open source.
    for _ in range(2):
        with pytest.raises(UserError, match="no clip could be created; wav-1: no video in it"):
            ingest(["wav-1"], tmp_path, prepare)


@pytest.mark.slow
def test_two_workers_write_the_shards_of_one_and_a_crash_in_a_packed_unit_costs_only_its_source(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xdub.data.source_worker.UNITS", 2)
    sources = ["ok-1", "wav-2", "crash-3", "ok-4", "ok-5", "empty-6", "bug-7", "ok-8"]
    fixed = tmp_path / "fixed"
    prepare_one = prepare(str(fixed))
    texts: list[str] = []
    first = ingest(
        sources,
        tmp_path / "two",
        lambda: prepare_one,
        workers=2,
        on_progress=lambda done, total=None, text="": texts.append(text),
    )
    # The unit of the first four sources is split before its last attempt.
    assert first.clips == 8 and status(tmp_path / "two")["crash-3"] == ["failed"]
    assert any("2 workers" in text for text in texts) and any("3 lost" in text for text in texts)
    # Ray's own messages are not shown.
    output = capfd.readouterr().err
    assert "INFO" not in output and "WARNING" not in output
    fixed.touch()
    second = ingest(sources, tmp_path / "two", lambda: prepare(str(fixed)), workers=1)
    assert second.clips == 2 and status(tmp_path / "two")["crash-3"] == ["kept", "kept"]
    ingest(sources, tmp_path / "one", lambda: prepare(str(fixed)), workers=1)
    assert [shard.rows for shard in content(tmp_path / "one")] == [6, 4]
    assert [shard.rows for shard in content(tmp_path / "two")] == [2, 2, 4, 2]
    assert content(tmp_path / "two")[2] == content(tmp_path / "one")[1]
    ids = [read_manifest(tmp_path / name).ids for name in ("one", "two")]
    assert [*ids[1][:2], *ids[1][8:], *ids[1][2:8]] == list(ids[0])


def content(folder: Path) -> list[Shard]:
    """Return the shards of a data set in order, whose names and hashes are those of their content."""
    return list(read_manifest(folder, verify=True).shards)


def test_a_name_that_is_not_utf8_is_refused_before_any_work(tmp_path):
    bad = os.fsdecode(b"\xff.mp4")
    for sources, out in (([bad], tmp_path / "ds"), (["a.mp4"], tmp_path / bad)):
        with pytest.raises(UserError, match="not UTF-8 text; rename"):
            ingest(sources, out, lambda: lambda source: [], workers=1)
    assert not list(tmp_path.iterdir())


class Killed(BaseException):
    """The end of the process."""


def test_a_kill_before_or_after_any_write_loses_no_clip_and_adds_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("xdub.data.source_worker.UNITS", 2)
    sources = ["ok-1", "wav-2", "ok-3", "empty-4"]
    for number, source in enumerate(sources):
        Path(source).write_text("x" * number)
    ingest(sources, "whole", prepare, workers=1)
    expected = content(Path("whole")), status(Path("whole"))
    points = 0

    def killing(write: Callable[..., Any], killed_at: int) -> Callable[..., Any]:
        def killing_write(*args: Any) -> Any:
            nonlocal points
            result = None
            for step in ("before", "after"):
                if points == killed_at:
                    raise Killed(step)
                points += 1
                result = write(*args) if step == "before" else result
            return result

        return killing_write

    for killed_at in range(100):
        out, points = Path(f"killed at {killed_at}"), 0
        with monkeypatch.context() as patch:
            patch.setattr(Location, "write_bytes", killing(Location.write_bytes, killed_at))
            patch.setattr("xdub.data.packing.write_shard", killing(write_shard, killed_at))
            patch.setattr("xdub.data.dataset.write_head", killing(write_head, killed_at))
            try:
                ingest(sources, out, prepare, workers=1)
            except Killed:
                pass
            else:
                break
        ingest(sources, out, prepare, workers=1)
        assert (content(out), status(out)) == expected, killed_at
    # Two units, each with a shard, a part of the sources, of the manifest and of the ledger, and one head.
    assert killed_at == 2 * (2 * 4 + 1)
