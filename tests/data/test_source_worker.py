"""The worker of ingest: it packs clips of complete sources into shards and returns facts, never pixels."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from xdub.data.clip import Clip, to_row
from xdub.data.dataset import DataSet
from xdub.data.ledger import LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.packing import ShardPacker
from xdub.data.source_worker import (
    MAX_BYTES,
    MAX_SOURCES,
    UNITS,
    SourceJob,
    SourceUnit,
    SourceWorker,
    failed_unit,
    pack_sources,
    split_unit,
)
from xdub.data.testing import make_clip
from xdub.errors import UserError
from xdub.files.storage import locate


def prepare_one(source: str) -> Iterator[Clip | LedgerRow]:
    """Yield as many clips as the name says; a name with "bug" or "torn" fails after them."""
    kind, number, clips = source.split("-")
    for part in range(int(clips)):
        yield make_clip(100 * int(number) + part, num_frames=5)
        yield LedgerRow(input=source, clip_id=f"frames {part}", status="rejected", check="length")
    if kind == "bug":
        raise KeyError("oops")
    if kind == "torn":
        raise UserError(f"{source}: the file ends early")


def run(folder: Path, *names: str, rows_per_shard: int = 4):
    worker = SourceWorker(lambda: prepare_one, locate(folder), rows_per_shard)
    return worker.run(SourceUnit(0, tuple(SourceJob(name=name, input=f"input {name}") for name in names)))


def ids(*sources: tuple[int, int]) -> list[str]:
    """Return the clip ids of (number of a source, its clips)."""
    return [
        make_clip(100 * number + part, num_frames=5).clip_id
        for number, clips in sources
        for part in range(clips)
    ]


def test_sources_share_a_shard_and_a_failed_one_leaves_no_clip(tmp_path: Path) -> None:
    outcome = run(tmp_path, "ok-1-1", "bug-2-6", "ok-3-2", "torn-4-1")
    assert [id for shard in outcome.shards for id in shard.ids] == ids((1, 1), (3, 2), (4, 1))
    rows = {name: [] for name in outcome.names}
    for row in outcome.ledger:
        rows[row.input.removeprefix("input ")].append(row.status)
    assert rows["bug-2-6"] == ["failed"], "a rejected row would settle the source"
    assert rows["torn-4-1"] == ["rejected", "rejected", "kept"]
    assert rows["ok-3-2"] == ["rejected", "rejected", "kept", "kept"]


def test_a_shard_mixes_no_unfinished_source_with_a_complete_one(tmp_path: Path) -> None:
    packer = ShardPacker(locate(tmp_path), rows_per_shard=3)
    clips = [to_row(make_clip(seed, num_frames=5)) for seed in range(9)]
    packer.add(clips[0])
    packer.keep()
    for row in clips[1:8]:
        packer.add(row)
    packer.drop()
    packer.add(clips[8])
    packer.keep()
    assert [list(shard.ids) for shard in packer.close()] == [[clips[0]["clip_id"]], [clips[8]["clip_id"]]]


def test_a_long_source_is_written_while_it_is_prepared(tmp_path: Path) -> None:
    outcome = run(tmp_path, "ok-1-9", "ok-2-1")
    assert [shard.rows for shard in outcome.shards] == [4, 4, 2]


def test_an_outcome_has_less_than_four_kilobytes_a_clip(tmp_path: Path) -> None:
    outcome = run(tmp_path, *(f"ok-{number}-4" for number in range(4)))
    assert len(pickle.dumps(outcome)) / 16 < 1000
    folder_bytes = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert folder_bytes / 16 > 4000


def test_a_source_that_fails_after_its_shards_were_committed_removes_none_of_them(tmp_path: Path) -> None:
    with DataSet(tmp_path, kind="clips") as dataset:
        dataset.commit(run(tmp_path, "ok-1-6").shards)
        outcome = run(tmp_path, "bug-1-6", "bug-2-4")
        assert len(list(tmp_path.glob("shard-*"))) == 3
        assert read_manifest(tmp_path, verify=True).ids == ids((1, 6))
        dataset.commit(outcome.shards, outcome.ledger, dropped=outcome.dropped)
        assert not dataset.ledger.settled("input bug-1-6")
    assert read_manifest(tmp_path, verify=True).ids == ids((1, 6))
    assert len(list(tmp_path.glob("shard-*"))) == 2, "shards that no commit names are removed"


def test_a_clip_that_cannot_be_encoded_costs_only_its_source(tmp_path: Path, monkeypatch) -> None:
    def encode(clip: Clip) -> dict:
        if clip.clip_id in ids((1, 2)):
            raise MemoryError("no memory")
        return to_row(clip)

    monkeypatch.setattr("xdub.data.source_worker.to_row", encode)
    outcome = run(tmp_path, "ok-1-2", "ok-2-2")
    assert [id for shard in outcome.shards for id in shard.ids] == ids((2, 2))
    assert outcome.ledger[0].message == "MemoryError: no memory"


def test_a_full_disk_is_an_error_of_the_run_and_not_of_a_source(tmp_path: Path, monkeypatch) -> None:
    def full(folder, rows):
        raise UserError(f"{folder}: the disk is full")

    monkeypatch.setattr("xdub.data.packing.write_shard", full)
    with pytest.raises(UserError, match="the disk is full"):
        run(tmp_path, "ok-1-9")


def jobs(count: int, size: int) -> list[tuple[SourceJob, int]]:
    return [(SourceJob(name=str(number), input=str(number)), size) for number in range(count)]


def test_few_sources_are_units_of_their_own_and_many_are_packed() -> None:
    assert [len(unit.jobs) for unit in pack_sources(jobs(UNITS, 1))] == [1] * UNITS
    units = list(pack_sources(jobs(UNITS * 20, 1)))
    assert {len(unit.jobs) for unit in units} == {MAX_SOURCES}
    assert [unit.number for unit in units] == list(range(len(units)))
    assert {len(unit.jobs) for unit in pack_sources(jobs(UNITS * 20, MAX_BYTES // 2))} == {2}


def test_a_unit_is_split_into_its_sources_and_fails_with_a_row_for_each() -> None:
    (unit,) = (SourceUnit(3, tuple(job for job, _ in jobs(3, 1))),)
    assert [part.jobs for part in split_unit(unit)] == [(job,) for job in unit.jobs]
    outcome = failed_unit(unit, "its worker died 3 times: killed")
    assert outcome.names == ["0", "1", "2"] and not outcome.shards
    assert {(row.status, row.check) for row in outcome.ledger} == {("failed", "worker")}
