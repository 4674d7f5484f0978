"""Ingest: every source ends in the ledger, whatever happens to it, here and in Ray's actors alike."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xdub.data.clip import Clip
from xdub.data.ingest import ingest
from xdub.data.shards import Ledger, LedgerRow, read_manifest
from xdub.data.testing import make_clip
from xdub.errors import UserError


def prepare() -> Any:
    """What to do with one source, told by its name; made here so that actors need not import this file."""

    def prepare_one(source: str, recipe: Any) -> tuple[Iterator[Clip], list[LedgerRow]]:
        kind, number = source.split("-")
        rows: list[LedgerRow] = []

        def clips() -> Iterator[Clip]:
            for part in range(2):
                clip = make_clip(10 * int(number) + part, num_frames=5)
                yield clip
                rows.append(
                    LedgerRow(input=source, clip_id=clip.clip_id, status="kept", check="face", value=1.0)
                )

        if kind == "wav":
            raise UserError(f"{source}: no video in it")
        if kind == "bug":
            raise KeyError("oops")
        if kind == "crash" and not Path(recipe).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return (iter(()) if kind == "empty" else clips()), rows

    return prepare_one


def status(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in Ledger(folder).rows():
        found.setdefault(row.input, []).append(row.status)
    return found


def test_every_source_ends_in_the_ledger_and_running_again_does_only_what_failed(tmp_path: Path) -> None:
    sources = ["ok-1", "wav-2", "bug-3", "empty-4", "ok-1", "ok-5"]
    seen = []
    made = ingest(
        sources,
        tmp_path,
        None,
        prepare(),
        workers=1,
        on_progress=lambda *a, **k: seen.append((*a, *k.values())),
    )
    assert (made.clips, made.sources, made.settled) == (4, 5, 0)
    assert seen[0] == (1, 5, "ok-1") and seen[-1] == (5, 5, "ok-5")
    assert status(tmp_path) == {
        "ok-1": ["kept", "kept"],
        "wav-2": ["rejected"],
        "bug-3": ["failed"],
        "empty-4": ["rejected"],
        "ok-5": ["kept", "kept"],
    }
    digest = read_manifest(tmp_path, verify=True).digest
    called = []
    one = prepare()
    again = ingest(sources, tmp_path, None, lambda s, r: called.append(s) or one(s, r), workers=1)
    assert called == ["bug-3"] and again.clips == 0 and again.settled == 4
    assert read_manifest(tmp_path).digest == digest


def test_a_data_set_without_a_clip_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no clip could be made; wav-1: no video in it"):
        ingest(["wav-1"], tmp_path, None, prepare())
    with pytest.raises(
        UserError, match="no clip could be made; wav-1: no video in it"
    ):  # also when all is settled
        ingest(["wav-1"], tmp_path, None, prepare())


@pytest.mark.slow
def test_ray_actors_make_the_same_data_set_and_a_crash_costs_its_source_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    sources = ["ok-1", "wav-2", "crash-3", "ok-4"]
    fixed = tmp_path / "fixed"
    made = ingest(sources, tmp_path / "ray", str(fixed), prepare(), workers=2)
    assert made.clips == 4 and status(tmp_path / "ray")["crash-3"] == ["failed"]
    assert "INFO" not in (told := capfd.readouterr().err) and "WARNING" not in told  # Ray's own account
    ingest([s for s in sources if s != "crash-3"], tmp_path / "local", str(fixed), prepare(), workers=1)
    assert read_manifest(tmp_path / "ray").ids == read_manifest(tmp_path / "local").ids
    fixed.touch()
    again = ingest(sources, tmp_path / "ray", str(fixed), prepare(), workers=1)
    assert again.clips == 2 and status(tmp_path / "ray")["crash-3"] == ["kept", "kept"]
