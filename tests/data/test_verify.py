"""Shards are hashed once per machine and again after a change; every read detects damaged pages."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from earlier_sets import write_earlier_set

from xdub.data import manifest as manifest_module
from xdub.data import verify
from xdub.data.manifest import read_manifest
from xdub.data.shards import ShardReader, ShardWriter
from xdub.data.testing import make_clip
from xdub.data.verify import verify_shard
from xdub.errors import UserError


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "ds", rows_per_shard=2) as writer:
        for seed in range(4):
            writer.add(make_clip(seed, num_frames=5))
    return tmp_path / "ds"


@pytest.fixture(autouse=True)
def hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the names of hashed files; the cache is empty, and results are stored for files of any age."""
    names: list[str] = []
    real_sha256 = manifest_module.file_sha256
    monkeypatch.setattr(
        manifest_module, "file_sha256", lambda path: names.append(path.name) or real_sha256(path)
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(verify, "SETTLED_SECONDS", 0.0)
    return names


def name(folder: Path, number: int) -> str:
    """Return the file name of a shard."""
    return read_manifest(folder).shards[number].file


def check(folder: Path, number: int = 0) -> None:
    manifest = read_manifest(folder)
    verify_shard(manifest.path(number), manifest.shards[number])


def flip(path: Path, offset: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_a_shard_is_hashed_once_per_machine(dataset: Path, hashed: list[str]) -> None:
    for _ in range(3):
        check(dataset, 0)
        check(dataset, 1)
    assert hashed == [name(dataset, 0), name(dataset, 1)]


@pytest.mark.parametrize("change", ["in place", "with its old time", "another file"])
def test_a_changed_shard_is_hashed_again(dataset: Path, change: str) -> None:
    check(dataset)
    path = dataset / name(dataset, 0)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    if change == "another file":
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    flip(path, 100)
    if change != "in place":
        os.utime(path, ns=times)
    for _ in range(2):
        with pytest.raises(UserError, match=f"{path.name}: sha256 differs from the manifest"):
            check(dataset)


def test_a_new_manifest_is_checked_again(tmp_path: Path) -> None:
    dataset = write_earlier_set(tmp_path / "old", [make_clip(seed, num_frames=5) for seed in range(4)])
    check(dataset)
    raw = json.loads((dataset / "manifest.json").read_text())
    raw["shards"][0]["sha256"] = "0" * 64
    (dataset / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match="sha256 differs"):
        check(dataset)


def test_the_result_of_a_new_file_is_not_stored(
    dataset: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "SETTLED_SECONDS", 1000.0)
    check(dataset)
    check(dataset)
    assert len(hashed) == 2


@pytest.mark.parametrize("content", ["", '{"bytes": 1', "null"])
def test_an_incomplete_result_is_ignored(
    dataset: Path, hashed: list[str], content: str, tmp_path: Path
) -> None:
    check(dataset)
    (record,) = (tmp_path / "cache/xdub/shards").iterdir()
    record.write_text(content)
    check(dataset)
    check(dataset)
    assert len(hashed) == 2


def test_without_a_cache_folder_every_check_hashes(
    dataset: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    check(dataset)
    check(dataset)
    assert len(hashed) == 2


def test_concurrent_checks_of_a_shard_hash_it_once(dataset: Path, hashed: list[str]) -> None:
    threads = [threading.Thread(target=check, args=(dataset,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hashed == [name(dataset, 0)]


def test_a_reader_hashes_a_wrong_shard_once_and_refuses_all_its_rows(
    dataset: Path, hashed: list[str]
) -> None:
    flip(dataset / name(dataset, 0), 100)
    reader = ShardReader(read_manifest(dataset), verify=True)
    for index in (0, 1, 0):
        with pytest.raises(UserError, match="sha256 differs"):
            reader.row(index)
    assert reader.clip(2).num_frames == 5
    assert hashed == [name(dataset, 0), name(dataset, 1)]


def test_later_damage_is_detected_by_the_checksum_of_its_page(dataset: Path) -> None:
    """The damaged column is the first row's largest, whose bytes Parquet would otherwise return unchecked."""
    manifest = read_manifest(dataset)
    path = dataset / name(dataset, 0)
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    columns = [metadata.row_group(0).column(i) for i in range(metadata.num_columns)]
    column = max(columns, key=lambda column: column.total_compressed_size)
    start = column.dictionary_page_offset or column.data_page_offset
    # All offsets lie within the page.
    for offset in range(start + 100, start + column.total_compressed_size - 100, 997):
        flip(path, offset)
        reader = ShardReader(manifest)
        with pytest.raises(UserError, match=f"{path.name}, row 0: cannot be read .*(?i:crc|checksum)"):
            reader.row(0)
        assert reader.clip(1).num_frames == 5, "its neighbour is readable"
        flip(path, offset)
