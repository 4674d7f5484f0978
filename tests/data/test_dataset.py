"""Commits: each costs the same at any size, and a kill at any moment loses no committed clip and doubles none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from earlier_sets import write_earlier_set

from xdub.data import manifest_files, shard_files
from xdub.data import parts as parts_module
from xdub.data.clip import to_row
from xdub.data.dataset import DataSet
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.manifest_files import ShardFacts, assign_speakers
from xdub.data.parts import NAME, Parts
from xdub.data.shard_files import write_shard
from xdub.data.shards import ShardWriter, iter_clips, speakers_of, twins_of
from xdub.data.testing import make_clip
from xdub.errors import UserError
from xdub.files import storage
from xdub.files.storage import Location, locate

ROWS = [to_row(make_clip(seed, num_frames=5, size=16)) for seed in range(6)]
UNITS = [ROWS[:1], ROWS[1:2], ROWS[2:4], ROWS[4:]]


class Killed(BaseException):
    """The end of a process at a write."""


class Writes:
    """Counter of everything that changes files; at a number of them the process is killed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count, self.last, self.bytes = 0, 10**9, 0
        for target, name in (
            (Location, "write_bytes"),
            (Location, "upload"),
            (Location, "delete"),
            (Path, "replace"),
            (manifest_files, "write_text"),
        ):
            patch.setattr(target, name, self._counted(getattr(target, name)))

    def _counted(self, write: Any) -> Any:
        def counted(self_: Any, *arguments: Any, **options: Any) -> Any:
            if self.count >= self.last:
                raise Killed
            self.count += 1
            self.bytes += sum(len(each) for each in arguments if isinstance(each, (bytes, memoryview)))
            return write(self_, *arguments, **options)

        return counted


def entries(unit: int) -> list[LedgerRow]:
    """Return the ledger rows of a unit."""
    kept = [
        LedgerRow(input=f"v{unit}", clip_id=row["clip_id"], status="kept", scores={"a": 1.0})
        for row in UNITS[unit]
    ]
    return [*kept, LedgerRow(input=f"bad{unit}", status="rejected", check="face", value=0.0)]


def build(folder: Path) -> Iterator[int]:
    """Commit all units whose inputs are not settled; two workers are one unit ahead. Yield each committed unit."""
    with DataSet(folder, kind="clips", recipe={"size": 16}) as dataset:
        todo = [unit for unit in range(len(UNITS)) if not dataset.ledger.settled(f"v{unit}")]
        ready: dict[int, ShardFacts] = {}
        for unit in todo:
            for ahead in [each for each in (unit + 1, unit) if each in todo and each not in ready]:
                ready[ahead] = write_shard(folder, UNITS[ahead])
            dataset.commit([ready[unit]], entries(unit))
            yield unit


def content(folder: Path) -> tuple:
    """Return shards, ids and ledger of a data set, and its files."""
    manifest = read_manifest(folder, verify=True)
    rows = list(Ledger(folder).rows())
    return list(manifest.shards), list(manifest.ids), rows


def test_a_kill_between_any_two_writes_loses_no_commit_and_doubles_no_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "FAN", 2)
    for module in (storage, shard_files):
        monkeypatch.setattr(module, "sync", lambda handle: None)
    writes = Writes(monkeypatch)
    assert list(build(tmp_path / "whole")) == list(range(len(UNITS)))
    whole, total = content(tmp_path / "whole"), writes.count
    assert total > 20 and len(whole[1]) == len(ROWS)
    for kill in range(total):
        folder = tmp_path / str(kill)
        writes.count, writes.last = 0, kill
        committed: list[int] = []
        with pytest.raises(Killed):
            committed.extend(build(folder))
        writes.last = 10**9
        if committed:
            # A reader opens the set as the killed writer left it.
            shards, ids, rows = content(folder)
            assert ids == whole[1][: len(ids)] and len(ids) >= len(committed)
            assert {row.clip_id for row in rows if row.status == "kept"} <= set(ids)
            assert sum(row.input == "v0" for row in rows) == 1
        list(build(folder))
        assert content(folder) == whole, f"killed before write {kill}"
        files = {path.name for path in folder.glob("shard-*")}
        assert files == {shard.file for shard in whole[0]} and not list(folder.glob(".shard*"))
        assert all(NAME.fullmatch(path.name) for path in folder.glob("manifest/*"))


def test_a_commit_writes_the_same_bytes_whatever_the_size_of_the_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Average bytes of a commit, merges included; a ledger that is written again each time fails at the first ratio."""
    monkeypatch.setattr(parts_module, "FAN", 4)
    monkeypatch.setattr(parts_module, "LEVELS", 2)
    writes, means = Writes(monkeypatch), []
    dataset = DataSet(tmp_path, kind="clips")
    for block in range(3):
        writes.bytes = writes.count = 0
        for number in range(16 * block, 16 * (block + 1)):
            facts = synthetic(number)
            dataset.commit(
                [facts], [LedgerRow(input=f"{number}.mp4", clip_id=i, status="kept") for i in facts.ids]
            )
        means.append((writes.bytes, writes.count))
    assert means[2][0] < 1.1 * means[0][0] and means[2][1] <= means[0][1] + 1
    # Each block of 16 commits is merged to one part.
    assert len(list((tmp_path / "ledger").iterdir())) == len(list((tmp_path / "manifest").iterdir())) == 3


def synthetic(number: int, rows: int = 4) -> ShardFacts:
    """Return facts of a shard that has no file."""
    digest = f"{number:016x}" + 48 * "0"
    ids = tuple(f"{number:08x}{row:08x}" for row in range(rows))
    return ShardFacts(
        file=f"shard-{digest[:16]}.parquet",
        rows=rows,
        bytes=0,
        sha256=digest,
        kind="clips",
        ids=ids,
        num_frames=(77,) * rows,
        speakers=("s",) * rows,
        twins=(None,) * rows,
    )


def test_a_clip_that_is_in_two_shards_counts_once(tmp_path: Path) -> None:
    with DataSet(tmp_path) as dataset:
        assert dataset.commit([write_shard(tmp_path, ROWS[:3])]) == 3
        assert dataset.commit([write_shard(tmp_path, ROWS[2:5]), write_shard(tmp_path, ROWS[4:])]) == 3
        assert dataset.commit([write_shard(tmp_path, ROWS[1:3])]) == 0, "no new clip"
        assert dataset.commit([write_shard(tmp_path, ROWS[:3])]) == 0, "the same shard"
    manifest = read_manifest(tmp_path, verify=True)
    want = [row["clip_id"] for row in ROWS[:6]]
    assert manifest.ids == want == [clip.clip_id for clip in iter_clips(tmp_path)]
    assert len(manifest.shards) == 3 == len(list(tmp_path.glob("shard-*"))) and len(dataset) == 6
    assert manifest.skipped == ((1, 0), (2, 0)) and list(manifest.locations)[3:] == [(1, 1), (1, 2), (2, 1)]
    assert [manifest.rows_of(shard) for shard in range(3)] == [range(3), range(3, 5), range(5, 6)]


@pytest.mark.parametrize("speakers", [True, False], ids=["with speakers", "the first version"])
def test_a_set_of_an_earlier_version_opens_and_is_continued(tmp_path: Path, speakers: bool) -> None:
    clips = [make_clip(seed, num_frames=5, size=16, speaker=f"s{seed}") for seed in range(5)]
    rows = [LedgerRow(input=f"v{n}", clip_id=clip.clip_id, status="kept") for n, clip in enumerate(clips)]
    folder = write_earlier_set(tmp_path, clips, rows, speakers=speakers, scores=speakers)
    old, head = read_manifest(folder, verify=True), (folder / "manifest.json").read_bytes()
    assert old.ids == [clip.clip_id for clip in clips] and list(Ledger(folder).rows()) == rows
    more = make_clip(9, num_frames=5, size=16, speaker="s9", twin_of="x")
    with DataSet(folder) as dataset:
        assert dataset.ledger.settled("v4") and clips[0].clip_id in dataset
        new = [LedgerRow(input="v9", clip_id=more.clip_id, status="kept", scores={"a": 1.0})]
        assert dataset.commit([write_shard(folder, [to_row(clips[0]), to_row(more)])], new) == 1
    manifest = read_manifest(folder, verify=True)
    assert manifest.ids == [*old.ids, more.clip_id] and manifest.shards[:3] == old.shards
    assert list(speakers_of(manifest)) == ["s0", "s1", "s2", "s3", "s4", "s9"]
    assert list(twins_of(manifest)) == [None] * 5 + ["x"]
    assert manifest.beginning(3) == old.beginning(3) and manifest.digest != old.digest
    assert [clip.clip_id for clip in iter_clips(folder)] == manifest.ids
    assert list(Ledger(folder).rows()) == rows + new
    assert (folder / "manifest.json").read_bytes() == head and (folder / "ledger.parquet").is_file()


def test_the_digest_of_the_same_content_is_that_of_earlier_versions(tmp_path: Path) -> None:
    import hashlib

    clips = [make_clip(seed, num_frames=5, size=16) for seed in range(5)]
    manifest = read_manifest(write_earlier_set(tmp_path, clips))
    text = json.dumps(["clips", [shard.sha256 for shard in manifest.shards], [c.clip_id for c in clips]])
    assert manifest.digest == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_shards_without_a_commit_are_added_only_if_their_clips_are_recorded(tmp_path: Path) -> None:
    with DataSet(tmp_path, kind="clips") as dataset:
        dataset.commit([write_shard(tmp_path, ROWS[:2])], entries(0))
        dataset.ledger.add(LedgerRow(input="v1", clip_id=ROWS[2]["clip_id"], status="kept"))
    recorded, unknown = write_shard(tmp_path, ROWS[2:4]), write_shard(tmp_path, ROWS[4:])
    (tmp_path / ".shard-abc.parquet").write_bytes(b"half")
    (tmp_path / "ledger/.00000003-0123456.0a1b2c3d.parquet").write_bytes(b"half")
    (tmp_path / "shard-0123456789abcdef.parquet").write_bytes(b"no content")
    DataSet(tmp_path).close()
    assert [shard.file for shard in read_manifest(tmp_path).shards][1:] == [recorded.file]
    with Ledger(tmp_path) as ledger:
        ledger.add(LedgerRow(input="later", status="failed"))
    assert not list(tmp_path.glob("ledger/.*"))
    assert not (tmp_path / unknown.file).exists() and len(list(tmp_path.glob("*shard-*"))) == 2
    # Nothing is known about the shards of a set that lost its manifest and ledger.
    (tmp_path / "lost").mkdir()
    (tmp_path / recorded.file).rename(tmp_path / "lost" / recorded.file)
    ShardWriter(tmp_path / "lost", kind="clips").close()
    assert len(read_manifest(tmp_path / "lost").ids) == 2
    (tmp_path / "lost/shard-00009.parquet").write_bytes(b"no content")
    with pytest.raises(UserError, match=r"shard-00009\.parquet: not a readable shard"):
        DataSet(tmp_path / "lost")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest\.json is missing, but .*manifest lists shards"):
        DataSet(tmp_path)


@pytest.mark.parametrize("folder", ["manifest", "ledger"])
@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "missing", "link"])
def test_a_damaged_part_is_one_error_that_names_it(tmp_path: Path, folder: str, damage: str) -> None:
    with DataSet(tmp_path / "ds", kind="clips") as dataset:
        for unit in range(3):
            dataset.commit([write_shard(tmp_path / "ds", UNITS[unit])], entries(unit))
    path = sorted((tmp_path / "ds" / folder).iterdir())[1]
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:-9])
    elif damage == "changed":
        path.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.rename(tmp_path / "elsewhere")
        if damage == "link":
            path.symlink_to(tmp_path / "elsewhere")
    message = "part 00000001 is missing" if damage in ("missing", "link") else f"{path.name}: damaged"
    for opened in (lambda: DataSet(tmp_path / "ds"), lambda: read_manifest(tmp_path / "ds")):
        with pytest.raises(UserError, match=message) as error:
            opened() if folder == "manifest" else Ledger(tmp_path / "ds")
        assert len(str(error.value).splitlines()) == 1


def test_a_second_writer_is_refused_and_removes_no_shard_of_the_first(tmp_path: Path) -> None:
    with DataSet(tmp_path, kind="clips") as first:
        facts = [write_shard(tmp_path, rows) for rows in UNITS]
        with pytest.raises(UserError, match="another process writes this data set; wait for it"):
            DataSet(tmp_path)
        assign_speakers(locate(tmp_path), [ROWS[0]["clip_id"]], ["a"])
        assert first.commit(facts) == len(ROWS)
    assert (read_manifest(tmp_path, verify=True).speakers or ())[0] == "a"
    with pytest.raises(UserError), DataSet(tmp_path):
        raise UserError("the disk is full")
    DataSet(tmp_path).close()


def test_two_writers_of_one_set_are_noticed(tmp_path: Path) -> None:
    # A file system without locks does not refuse the second one.
    first, second = DataSet(tmp_path, kind="clips"), manifest_files.manifest_parts(locate(tmp_path))
    assert not second.parts
    first.commit([synthetic(0)])
    second.append(manifest_files.facts_table([synthetic(1)]))
    with pytest.raises(UserError, match="part 00000000 exists twice: two writers were active"):
        read_manifest(tmp_path)


def test_an_interrupt_between_the_rows_of_a_source_settles_no_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, rows = Ledger.add, entries(2)

    def add(ledger: Ledger, row: LedgerRow) -> bool:
        if row is rows[1]:
            raise KeyboardInterrupt
        return real(ledger, row)

    monkeypatch.setattr(Ledger, "add", add)
    with pytest.raises(KeyboardInterrupt), DataSet(tmp_path, kind="clips") as dataset:
        dataset.commit([write_shard(tmp_path, UNITS[2])], rows)
    assert not Ledger(tmp_path).settled("v2") and len(read_manifest(tmp_path, verify=True).ids) == 2


@pytest.mark.parametrize("folder", ["manifest", "ledger"])
def test_an_interrupt_while_parts_are_merged_leaves_a_set_that_opens(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "FAN", 2)
    real = Location.write_bytes

    def write(location: Location, content: bytes) -> None:
        real(location, content)
        if location.parent.name == folder and "-00000001-" in location.name:
            raise KeyboardInterrupt

    monkeypatch.setattr(Location, "write_bytes", write)
    with pytest.raises(KeyboardInterrupt), DataSet(tmp_path, kind="clips") as dataset:
        for unit in range(2):
            dataset.ledger.add(LedgerRow(input=f"early {unit}", status="failed"))
            dataset.commit([write_shard(tmp_path, UNITS[unit])], entries(unit))
    list(build(tmp_path))
    assert len(read_manifest(tmp_path, verify=True).ids) == len(ROWS)
    rows = [row for row in Ledger(tmp_path).rows() if row.status == "kept"]
    assert len(rows) == len({row.clip_id for row in rows}) == len(ROWS)


def test_a_reader_finds_all_rows_while_a_writer_merges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = DataSet(tmp_path, kind="clips")
    for number in range(5):
        dataset.commit([synthetic(number)], [LedgerRow(input=f"{number}", status="rejected", check="x")])
    real, calls = Location.sizes, []

    def sizes(location: Location) -> dict[str, int]:
        names = real(location)
        if not calls:
            calls.append(location)
            dataset.compact()
        return names

    monkeypatch.setattr(Location, "sizes", sizes)
    assert sum(1 for _ in Ledger(tmp_path).rows()) == 5
    rows = dataset.ledger.rows()
    next(rows)
    dataset.commit([], [LedgerRow(input="later", status="failed")])
    dataset.compact()
    assert sum(1 for _ in rows) == 4, "an open iterator reads the rows of its beginning"


def test_compaction_leaves_one_part_and_the_same_rows(tmp_path: Path) -> None:
    list(build(tmp_path))
    before = content(tmp_path)
    with DataSet(tmp_path) as dataset:
        assert dataset.compact() == (8, 2)
    assert content(tmp_path) == before
    with DataSet(tmp_path) as dataset:
        dataset.commit([write_shard(tmp_path, [to_row(make_clip(77, num_frames=5))])])
    assert len(read_manifest(tmp_path).ids) == len(ROWS) + 1


def test_speakers_of_the_set_replace_those_of_the_shards(tmp_path: Path) -> None:
    list(build(tmp_path))
    before, ids = read_manifest(tmp_path), [row["clip_id"] for row in ROWS]
    assign_speakers(locate(tmp_path), ids[:3], ["a", "a", "b"])
    assign_speakers(locate(tmp_path), [ids[2], "unknown"], ["c", "d"])
    after = read_manifest(tmp_path)
    assert list(after.speakers or ())[:4] == ["a", "a", "c", ROWS[3]["speaker"]]
    assert (after.digest, after.ids) == (before.digest, before.ids)
    # The first version has speakers in the shards alone.
    clips = [make_clip(seed, num_frames=5, size=16, speaker=f"s{seed}") for seed in range(3)]
    old = read_manifest(write_earlier_set(tmp_path / "old", clips, speakers=False))
    assign_speakers(old.folder, [clips[1].clip_id], ["a"])
    assert list(speakers_of(old)) == ["s0", "a", "s2"]


def test_a_part_of_an_earlier_version_may_lack_columns(tmp_path: Path) -> None:
    import pyarrow as pa

    narrow = Parts(locate(tmp_path), pa.schema([("a", pa.string())]))
    narrow.append(pa.table({"a": ["x"]}))
    wide = Parts(locate(tmp_path), pa.schema([("a", pa.string()), ("b", pa.int64())]))
    wide.append(pa.table({"a": ["y"], "b": [1]}, schema=wide.schema))
    assert [row for table in wide.read_all() for row in table.to_pylist()] == [
        {"a": "x", "b": None},
        {"a": "y", "b": 1},
    ]
