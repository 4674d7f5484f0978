"""Data sets on disk: every shard of the manifest is complete, whenever the writer was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from earlier_sets import write_earlier_set

from xdub.data.columns import Shard
from xdub.data.dataset import DataSet
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.manifest_files import ShardFacts, facts_table, manifest_parts, write_head
from xdub.data.shards import ShardReader, ShardWriter, iter_clips, read_clip
from xdub.data.testing import make_clip
from xdub.errors import UserError
from xdub.files.storage import locate


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "ds", rows_per_shard=2) as writer:
        for seed in range(5):
            writer.add(make_clip(seed, num_frames=5))
    return tmp_path / "ds"


def test_clips_are_read_in_order_and_by_id(dataset: Path) -> None:
    manifest = read_manifest(dataset, verify=True)
    assert [shard.rows for shard in manifest.shards] == [2, 2, 1] and manifest.kind == "clips"
    assert manifest.num_frames == (5,) * 5 and manifest.locations[-1] == (2, 0)
    want = [make_clip(seed, num_frames=5) for seed in range(5)]
    assert [clip.clip_id for clip in iter_clips(dataset)] == [clip.clip_id for clip in want]
    np.testing.assert_array_equal(read_clip(dataset, want[3].clip_id).audio, want[3].audio)
    with pytest.raises(UserError, match="has no clip 'feed'"):
        read_clip(dataset, "feed")


def test_a_second_writer_adds_only_new_clips(dataset: Path) -> None:
    before = read_manifest(dataset)
    with ShardWriter(dataset, rows_per_shard=2) as writer:
        added = [writer.add(make_clip(seed, num_frames=5)) for seed in range(7)]
        assert make_clip(6, num_frames=5).clip_id in writer and len(writer) == 7
    assert added == [False] * 5 + [True] * 2
    after = read_manifest(dataset, verify=True)
    assert after.shards[:3] == before.shards and len(after.ids) == len(set(after.ids)) == 7
    assert before.digest != after.digest


def test_the_same_clips_are_written_as_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "again", rows_per_shard=2) as writer:
        for seed in range(5):
            writer.add(make_clip(seed, num_frames=5))
    assert read_manifest(dataset).digest == read_manifest(tmp_path / "again").digest


@pytest.mark.parametrize("damage", ["truncated", "missing", "changed"])
def test_a_damaged_shard_is_named(dataset: Path, damage: str) -> None:
    path = dataset / read_manifest(dataset).shards[1].file
    data = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(data[:-10])
    elif damage == "changed":
        path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    message = {"truncated": "truncated", "missing": "is missing", "changed": "sha256 differs"}[damage]
    with pytest.raises(UserError, match=f"{path.name}: .*{message}"):
        read_manifest(dataset, verify=True)


def test_a_shard_of_another_format_is_named_when_it_is_read(dataset: Path) -> None:
    manifest = read_manifest(dataset)
    path = dataset / manifest.shards[1].file
    path.write_bytes(b"x" * path.stat().st_size)
    reader = ShardReader(manifest)
    reader.clip(0)
    with pytest.raises(UserError, match=f"{path.name}: not a readable shard"):
        reader.clip(2)


@pytest.mark.parametrize(
    "name", ["../secret.parquet", "/etc/passwd", "shard-1.parquet", "sub/shard-00000.parquet"]
)
def test_a_manifest_cannot_name_a_file_outside_its_folder(tmp_path: Path, name: str) -> None:
    dataset = write_earlier_set(tmp_path, [make_clip(0, num_frames=5)])
    raw = json.loads((dataset / "manifest.json").read_text())
    raw["shards"][0]["file"] = name
    (dataset / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match="is not a shard name"):
        read_manifest(dataset)
    facts = ShardFacts(
        **raw["shards"][0], kind="clips", ids=("x",), num_frames=(5,), speakers=("a",), twins=(None,)
    )
    with pytest.raises(ValueError, match="is not the name of a shard"):
        DataSet(tmp_path / "new").commit([facts])
    manifest_parts(locate(tmp_path / "part")).append(facts_table([facts]))
    write_head(locate(tmp_path / "part"), "clips", None)
    with pytest.raises(UserError, match="is not a shard name"):
        read_manifest(tmp_path / "part")


def test_a_shard_cannot_be_a_link_to_a_file_outside_its_folder(dataset: Path, tmp_path: Path) -> None:
    shard = dataset / read_manifest(dataset).shards[0].file
    shard.rename(tmp_path / "elsewhere.parquet")
    shard.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(UserError, match="shard is missing"):
        read_manifest(dataset)


def test_bad_manifests_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a data set"):
        read_manifest(tmp_path)
    dataset = write_earlier_set(tmp_path / "old", [make_clip(seed, num_frames=5) for seed in range(5)])
    raw = json.loads((dataset / "manifest.json").read_text())
    for change, message in (
        ({"schema_version": 99}, "schema_version 99"),
        ({"kind": "cats"}, "kind 'cats'"),
        ({"ids": []}, "5 rows in shards but 0 ids"),
    ):
        (dataset / "manifest.json").write_text(json.dumps(raw | change))
        with pytest.raises(UserError, match=message):
            read_manifest(dataset)
    (dataset / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        read_manifest(dataset)


def test_a_data_set_has_one_kind_and_one_recipe(dataset: Path, tmp_path: Path) -> None:
    with ShardWriter(dataset) as writer, pytest.raises(UserError, match="holds clips"):
        writer.add(make_clip(9, pair=True))
    with pytest.raises(UserError, match="holds clips, not pairs"):
        ShardWriter(dataset, kind="pairs")
    with ShardWriter(tmp_path / "r", recipe={"size": 1}) as writer:
        writer.add(make_clip(0, num_frames=5))
    with pytest.raises(UserError, match="another recipe"):
        ShardWriter(tmp_path / "r", recipe={"size": 2})
    ShardWriter(tmp_path / "r", recipe={"size": 1})


def test_numbered_shards_without_a_manifest_entry_are_added(tmp_path: Path) -> None:
    clips = [make_clip(seed, num_frames=5) for seed in range(5)]
    folder = write_earlier_set(tmp_path, clips)
    raw = json.loads((folder / "manifest.json").read_text())
    last = raw["shards"].pop()
    raw |= {name: raw[name][:4] for name in ("ids", "num_frames", "speakers")}
    (folder / "manifest.json").write_text(json.dumps(raw))
    (folder / ".shard-00009.abc.parquet").write_bytes(b"half")
    with ShardWriter(folder) as writer:
        assert clips[4].clip_id in writer
    manifest = read_manifest(folder, verify=True)
    assert manifest.ids == [clip.clip_id for clip in clips] and manifest.shards[2] == Shard(**last)
    assert not list(folder.glob(".shard-*"))


def test_a_writer_killed_at_any_moment_leaves_a_valid_data_set(tmp_path: Path) -> None:
    code = (
        "import sys; from xdub.data.shards import ShardWriter; from xdub.data.testing import make_clip\n"
        "with ShardWriter(sys.argv[1], rows_per_shard=2) as writer:\n"
        "    for seed in range(10_000): writer.add(make_clip(seed, num_frames=5)); print(seed, flush=True)\n"
    )
    folder, total = tmp_path / "ds", 0
    for delay in (0.0, 0.13):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
        )
        while total <= 3 and not list(folder.glob("manifest/0*.parquet")):
            time.sleep(0.01)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        manifest = read_manifest(folder, verify=True)
        assert len(list(iter_clips(folder))) == len(manifest.ids) >= max(2, total)
        total = len(manifest.ids)
    with ShardWriter(folder) as writer:
        writer.add(make_clip(99_999, num_frames=5))
    manifest = read_manifest(folder, verify=True)
    assert len(manifest.ids) == len(set(manifest.ids)) > total


@pytest.mark.parametrize("name", ["s3:clips", "file:clips", "http:x?y#z", "-%41"])
def test_a_folder_that_looks_like_an_address_is_a_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ShardWriter(name, rows_per_shard=2) as writer, Ledger(Path(name)) as ledger:
        clip = make_clip(0, num_frames=5)
        writer.add(clip)
        ledger.add(LedgerRow(input="a", clip_id=clip.clip_id, status="kept"))
    assert read_clip(name, clip.clip_id).num_frames == 5
    assert [row.clip_id for row in Ledger(Path(name)).rows()] == [clip.clip_id]
    assert [path.name for path in tmp_path.iterdir()] == [name]
