"""Held-out clips: whole speakers, because other clips of a speaker that is trained on would flatter the accuracy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from earlier_sets import write_earlier_set
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub.data.held_out import draw_held_out
from xdub.data.manifest import read_manifest
from xdub.data.sample_order import SampleOrder
from xdub.data.shards import ShardWriter, speakers_of
from xdub.data.testing import make_clip


def dataset(folder: Path, speakers: list[str]) -> Path:
    with ShardWriter(folder, rows_per_shard=4) as writer:
        for seed, speaker in enumerate(speakers):
            writer.add(replace(make_clip(seed), speaker=speaker))
    return folder


def order(folder: Path, share: float = 0.2, seed: int = 0) -> SampleOrder:
    return SampleOrder([read_manifest(folder)], window=5, seed=seed, held_out=share)


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=30), share=st.floats(0.01, 0.4))
def test_a_speaker_is_held_out_with_all_clips_or_the_draw_is_by_clip(sizes: list[int], share: float) -> None:
    speakers = [f"s{n}" for n, size in enumerate(sizes) for _ in range(size)]
    ids = [f"c{n}" for n in range(len(speakers))]
    drawn = draw_held_out(ids, speakers, share)
    apart = {speakers[item] for item in drawn.items}
    rest = {speaker for item, speaker in enumerate(speakers) if item not in drawn.items}
    if drawn.by == "speaker":
        assert not apart & rest
    if drawn.items:
        assert len(drawn.items) >= 2 and len(ids) - len(drawn.items) >= 2


def test_one_recording_has_its_accuracy_by_clip_and_two_clips_have_none() -> None:
    ids = [f"c{n}" for n in range(20)]
    drawn = draw_held_out(ids, ["one"] * 20, 0.1)
    assert (drawn.by, len(drawn.items)) == ("clip", 2)
    assert draw_held_out(ids[:2], ["a", "b"], 0.5).items == ()


def test_clips_of_a_held_out_speaker_are_no_samples(tmp_path: Path) -> None:
    speakers = [f"s{n // 2}" for n in range(16)]
    split = order(dataset(tmp_path / "ds", speakers))
    apart = {speakers[ref.row] for ref in split.held_out_rows}
    assert split.held_out_by == "speaker" and apart
    assert not apart & {speakers[split.at(p)[1].row] for p in range(len(split))}
    assert order(tmp_path / "ds", seed=5).held_out_rows == split.held_out_rows


def test_a_set_of_an_earlier_version_has_the_same_held_out_clips(tmp_path: Path) -> None:
    clips = [replace(make_clip(n), speaker=f"s{n // 2}") for n in range(16)]
    folder = write_earlier_set(tmp_path / "new", clips, rows_per_shard=4)
    new, old = (
        order(folder),
        order(write_earlier_set(tmp_path / "old", clips, rows_per_shard=4, speakers=False)),
    )
    assert (old.held_out_rows, old.digest) == (new.held_out_rows, new.digest)
    folder = tmp_path / "old"
    # A writer that continues such a set does not know the speakers of its rows, so the shards keep the only list.
    with ShardWriter(folder) as writer:
        writer.add(replace(make_clip(99), speaker="later"))
    manifest = read_manifest(folder)
    assert manifest.speakers is None and speakers_of(manifest)[-1] == "later"
