"""Data sets in an object store: the same shards, manifest and ledger as on a disk, also after a kill."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from object_store import SECRET, s3_server

from xdub.data import parts as parts_module
from xdub.data.clip import to_row
from xdub.data.dataset import DataSet
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.manifest_files import assign_speakers
from xdub.data.sample_order import sample_order
from xdub.data.shard_files import write_shard
from xdub.data.shards import ShardReader, read_clip
from xdub.data.testing import make_clip
from xdub.errors import UserError
from xdub.files.storage import Location, locate

CLIPS = [make_clip(seed, num_frames=5, size=16) for seed in range(4)]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URI of an empty bucket."""
    with s3_server("footage") as uri:
        yield uri


class Killed(BaseException):
    """The end of a process."""


def build(folder: str | Path, kill: int | None = None) -> None:
    """Commit each clip as a shard with its ledger row; die before the write ``kill``."""
    with pytest.MonkeyPatch.context() as patch, DataSet(folder, kind="clips", recipe={"size": 16}) as dataset:
        count = 0
        real = Location.write_bytes

        def write(location: Location, content: bytes) -> None:
            nonlocal count
            if count == kill:
                raise Killed
            count += 1
            real(location, content)

        patch.setattr(Location, "write_bytes", write)
        patch.setattr(parts_module, "FAN", 2)
        for number, clip in enumerate(CLIPS):
            if not dataset.ledger.settled(f"v{number}"):
                row = LedgerRow(input=f"v{number}", clip_id=clip.clip_id, status="kept")
                dataset.commit([write_shard(folder, [to_row(clip)])], [row])


def test_a_killed_and_continued_set_in_a_bucket_equals_one_on_a_disk(bucket: str, tmp_path: Path) -> None:
    build(tmp_path / "disk")
    local = read_manifest(tmp_path / "disk", verify=True)
    for kill in (2, 5):
        folder = f"{bucket}/killed/{kill}"
        with pytest.raises(Killed):
            build(folder, kill)
        build(folder)
        manifest = read_manifest(folder, verify=True)
        assert (manifest.digest, manifest.shards, manifest.ids) == (local.digest, local.shards, local.ids)
        assert list(Ledger(folder).rows()) == list(Ledger(tmp_path / "disk").rows())
        names = set(locate(folder).sizes())
        assert {name for name in names if name.startswith("shard-")} == {shard.file for shard in local.shards}
        assert not [name for name in names if name.startswith(".")]


def test_clips_samples_and_compaction_work_in_a_bucket(bucket: str) -> None:
    folder = f"{bucket}/whole"
    build(folder)
    np.testing.assert_array_equal(read_clip(folder, CLIPS[2].clip_id).audio, CLIPS[2].audio)
    reader = ShardReader(read_manifest(folder), verify=True)
    assert reader.clip(3).clip_id == CLIPS[3].clip_id and str(reader.path(3)).startswith(folder)
    order = sample_order([folder], phase="generator", window=5, seed=0)
    assert {order.clip_id(order.at(position)[1]) for position in range(4)} == {c.clip_id for c in CLIPS}
    with DataSet(folder) as dataset:
        assign_speakers(dataset.folder, [CLIPS[0].clip_id], ["a"])
        assert dataset.compact()[1] == 3
    manifest = pickle.loads(pickle.dumps(read_manifest(folder)))
    assert (manifest.speakers[0], len(manifest.ids)) == ("a", 4)


def test_a_second_writer_of_a_bucket_leaves_the_shards_of_the_first(bucket: str) -> None:
    folder = f"{bucket}/two-writers"
    with DataSet(folder, kind="clips") as first:
        facts = write_shard(folder, [to_row(CLIPS[0])])
        with DataSet(folder):
            pass
        assert first.commit([facts]) == 1
        lost = write_shard(folder, [to_row(CLIPS[1])])
        (first.folder / lost.file).delete()
        with pytest.raises(UserError, match="was removed, perhaps by another writer"):
            first.commit([lost])
    assert len(read_manifest(folder, verify=True).ids) == 1


def test_a_reader_of_a_bucket_finds_all_rows_while_a_writer_merges(bucket: str) -> None:
    folder = f"{bucket}/merged"
    build(folder)
    ledger = Ledger(folder)
    opened = ledger.parts.open_all()
    with DataSet(folder) as dataset:
        dataset.ledger.add(LedgerRow(input="later", status="failed"))
        dataset.ledger.flush()
        dataset.compact()
    assert sum(table.num_rows for table in ledger.parts.read(opened)) == len(CLIPS)


def test_errors_name_a_file_of_a_bucket_without_credentials(bucket: str) -> None:
    folder = locate(f"{bucket.replace('s3://', f's3://test:{SECRET}@')}/damaged?region=us-east-1")
    build(folder)
    shard = read_manifest(folder).shards[1].file
    content = (folder / shard).read_bytes()
    (folder / shard).write_bytes(content[:-9])
    with pytest.raises(UserError, match=f"^s3://footage/damaged/{shard}: .*truncated"):
        read_manifest(folder)
    (folder / shard).write_bytes(content)
    part = folder / "ledger" / next(iter((folder / "ledger").sizes()))
    part.write_bytes(b"x" * 100)
    with pytest.raises(UserError, match=f"^s3://footage/damaged/ledger/{part.name}: damaged") as error:
        Ledger(folder)
    assert SECRET not in str(error.value) and SECRET not in repr(folder)
