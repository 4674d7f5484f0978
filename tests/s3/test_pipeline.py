"""Prepare, encode, train and pairs through an object store write what they write on a disk, also after a kill."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xdub.config import Recipe, load_recipe
from xdub.data.clip import Clip
from xdub.data.ingest import ingest
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.prepare import prepare_videos
from xdub.data.shard_files import write_shard
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.data.video_files import find_videos
from xdub.dub.testing import small_recipe, write_random_bundle
from xdub.encode import encode_latents
from xdub.files.lines import read_lines
from xdub.files.storage import Location, locate
from xdub.pairs.factory import build_pairs
from xdub.pairs.testing import plain_judges
from xdub.train.run import train_phase


class Killed(BaseException):
    """The end of the process."""


def content(out: str | Path | Location) -> list[tuple[str, str]]:
    """Return name and hash of every shard in order."""
    return [(shard.file, shard.sha256) for shard in read_manifest(out, verify=True).shards]


def results(out: str | Path | Location) -> list[tuple]:
    """Return the ledger's rows without names of folders and times."""
    rows = Ledger(out).rows()
    return [(row.input.rpartition("/")[2], row.clip_id, row.status, row.check, row.value) for row in rows]


def upload(folder: Path, target: Location) -> None:
    """Copy all files below a folder."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        (target / str(path.relative_to(folder))).upload(path)


def killed_at(count: int, write: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a write that ends the process after ``count`` calls."""
    calls = 0

    def killing(*args: Any) -> Any:
        nonlocal calls
        if calls == count:
            raise Killed
        calls += 1
        return write(*args)

    return killing


def read_text(source: str) -> Iterator[Clip | LedgerRow]:
    """Yield a clip of a text file's first number, of the names that real preparation gives clips."""
    path = Path(source)
    number, *rest = path.read_text().split()
    if rest:
        raise ValueError(f"{source}: too many words")
    yield make_clip(int(number), num_frames=5, speaker=f"{path.parent.name}/{path.name}")


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """Six sources in two folders, of which one fails, one is a copy and one is no video."""
    folder = tmp_path / "talks"
    for name, text in {
        "a/1.mp4": "1",
        "a/2.mp4": "2",
        "b/3.mp4": "3",
        "b/4.mp4": "3 4",
        "b/5.mp4": "1",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "b" / "notes.txt").write_text("none")
    return folder


def test_ingest_from_and_to_a_bucket_continues_after_a_kill_before_any_object(
    bucket: Location, talks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(talks, bucket / "talks")
    uri = f"{bucket}/talks"
    names = ("a/1", "a/2", "b/3", "b/4", "b/5")
    assert [str(video) for video in find_videos([uri])] == [f"{uri}/{name}.mp4" for name in names]
    ingest(find_videos([talks]), tmp_path / "disk", lambda: read_text, workers=1)
    expected = content(tmp_path / "disk"), results(tmp_path / "disk")
    assert len(expected[0]) == 3 and [row[2] for row in expected[1]] == ["kept"] * 3 + ["failed"]
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    # A unit writes parts of sources, manifest and ledger, and the first one manifest.json.
    for count in (0, 2, 6, 11):
        out = bucket / f"killed at {count}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Location, "write_bytes", killed_at(count, Location.write_bytes))
            patch.setattr("xdub.data.packing.write_shard", killed_at(count, write_shard))
            ingest(find_videos([uri]), out, lambda: read_text, workers=1)
        again = ingest(find_videos([uri]), out, lambda: read_text, workers=1)
        assert (again.sources, again.copies) == (4, 1)
        assert (content(out), results(out)) == expected, count
    # The copies of the sources are gone, and a path of one is in no message.
    assert not [path for path in scratch.rglob("*") if path.is_file()]
    (failed,) = Ledger(out).lookup(f"{uri}/b/4.mp4")
    assert failed.message == f"ValueError: {uri}/b/4.mp4: too many words"


def test_credentials_are_in_no_file_and_no_text(
    bucket: Location, server: str, talks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(talks, bucket / "talks")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    query = f"?scheme=http&endpoint_override={server.removeprefix('http://')}&region=us-east-1"
    secret = f"s3://the-key:the-secret@{bucket.path}"
    texts: list[str] = []
    ingest(
        find_videos([f"{secret}/talks{query}"]),
        f"{secret}/out{query}",
        lambda: read_text,
        workers=1,
        on_progress=lambda done, total=None, text="": texts.append(text),
    )
    out = locate(f"{secret}/out{query}")
    stored = b"".join(file.read_bytes() for file, _, _ in out.walk())
    assert b"the-secret" not in stored and b"the-key" not in stored and len(stored) > 10_000
    rows = list(Ledger(out).rows())
    assert rows[0].input == f"{bucket}/talks/a/1.mp4" and "secret" not in f"{rows}{texts}{out}"


@pytest.mark.slow
def test_a_video_in_a_bucket_has_the_clips_latents_and_losses_of_one_on_a_disk(
    bucket: Location, tmp_path: Path
) -> None:
    from xdub.media import write_video
    from xdub.render.clips import make_clips

    steps = ("train.steps=2", "train.global_batch=2", "train.micro_batch=2", "train.num_threads=1")
    sizes = ("model.hidden_size=32", "model.num_heads=2", "model.num_layers=2", "lora.rank=2", "lora.alpha=2")
    shape = ("video.size=64", "video.clip_frames=29", "train.window_stride=4", "train.latents=cached")
    recipe = load_recipe("tiny", [*shape, *sizes, *steps])
    pair = next(make_clips(7, [0], size=64, frames=31, full_size=256))
    talks = tmp_path / "talks"
    talks.mkdir()
    write_video(talks / "anna.mp4", pair.full, audio=pair.clip.audio, crf=10)
    upload(talks, bucket / "talks")
    losses = []
    for source, root in ((str(talks), str(tmp_path)), (f"{bucket}/talks", str(bucket))):
        prepare_videos([source], f"{root}/clips", recipe, workers=1)
        report = encode_latents(recipe, f"{root}/clips", phases=["generator"], local=True)
        assert (report.encoded, report.clips) == (1, 1)
        run = tmp_path / f"run {len(losses)}"
        result = train_phase("generator", recipe, f"{root}/clips", run, local=True, progress=lambda now: None)
        losses.append([record["loss"] for record in read_lines(result.folder.steps)])
    assert content(f"{bucket}/clips") == content(tmp_path / "clips")
    assert results(f"{bucket}/clips") == results(tmp_path / "clips")
    assert len(losses[0]) == 2 and losses[0] == losses[1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    """(model folder, its recipe), small and random; the filters accept every identity."""
    folder = tmp_path_factory.mktemp("models")
    thresholds = ("pairs.mouth_threshold=0.5", "pairs.identity_threshold=-1")
    return folder, write_random_bundle(folder, small_recipe(*thresholds), experts=False)


def test_pairs_of_clips_in_a_bucket_are_those_of_a_disk_after_a_kill(
    bucket: Location, models: tuple[Path, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, recipe = models
    with ShardWriter(tmp_path / "clips", rows_per_shard=3) as writer:
        for seed in range(7):
            writer.add(make_clip(seed, num_frames=25, speaker=f"speaker{seed % 2}"))
    upload(tmp_path / "clips", bucket / "clips")

    def build(data: str | Path, out: str | Path) -> Any:
        return build_pairs(recipe, folder, data, out, local=True, judges=plain_judges())

    build(tmp_path / "clips", tmp_path / "pairs")
    out = f"{bucket}/pairs"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("xdub.pairs.worker.write_shard", killed_at(1, write_shard))
        build(f"{bucket}/clips", out)
    assert 0 < len(content(out)) < len(content(tmp_path / "pairs"))
    report = build(f"{bucket}/clips", out)
    assert report.counts["kept"] and content(out) == content(tmp_path / "pairs")
    assert results(out) == results(tmp_path / "pairs")
    assert (locate(out) / "filters.png").size() > 1000
    before = content(out)
    build(f"{bucket}/clips", out)
    assert content(out) == before
    assert b"the-secret" not in pickle.dumps(results(out)) and np.all(
        [size > 0 for _, size, _ in locate(out).walk()]
    )
