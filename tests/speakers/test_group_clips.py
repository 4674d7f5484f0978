"""`xdub speakers` groups clips over files, finds copies, continues, and pairs respect both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xdub.config import load_recipe
from xdub.data.clip import Clip
from xdub.data.dataset import DataSet
from xdub.data.duplicates import read_duplicates
from xdub.data.manifest import read_manifest
from xdub.data.shards import ShardWriter
from xdub.errors import UserError
from xdub.files.storage import locate
from xdub.pairs.units import excluded_rows, plan_units, read_entries
from xdub.speakers import SpeakerReport, group_clips
from xdub.speakers.files import read_measured

FRAMES = 48


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("tiny")


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    """Two takes of each of three people, each as a file of its own, then a copy of the first clip."""
    from xdub.render.clips import make_clips

    rendered = [next(make_clips(7, [n], size=64, frames=FRAMES, full_size=128)).clip for n in (0, 1, 4, 5, 8)]
    clips = [cut(clip, n) for n, clip in enumerate(rendered)]
    noise = np.random.default_rng(0).normal(0, 0.002, len(clips[0].audio)).astype(np.float32)
    return [
        *clips,
        replace(clips[0], clip_id="copy", source=f"talks/5.mp4:0-{FRAMES}", audio=clips[0].audio + noise),
    ]


def cut(clip: Clip, number: int) -> Clip:
    name = f"talks/{number}.mp4"
    return replace(clip, clip_id=f"clip-{number}", source=f"{name}:0-{FRAMES}", speaker=name, twin_of=None)


@pytest.fixture(scope="module")
def grouped(clips, recipe, tmp_path_factory) -> tuple[Path, SpeakerReport]:
    folder = tmp_path_factory.mktemp("data") / "ds"
    write(folder, clips[:4])
    first = group_clips(recipe, folder, local=True)
    assert (first.clips, first.measured, first.speakers, first.alone) == (4, 4, 2, 0)
    # Two more clips arrive, one of a new person and one a copy.
    write(folder, clips[4:])
    return folder, group_clips(recipe, folder, local=True)


def write(folder: Path, clips: list[Clip]) -> None:
    with ShardWriter(folder, 2, kind="clips") as writer:
        for clip in clips:
            writer.add(clip)


def test_clips_of_one_person_in_different_files_have_one_speaker(grouped):
    folder, report = grouped
    speakers = [entry.speaker for entry in read_entries(read_manifest(folder))]
    first, second, third = (f"speaker-clip-{n}" for n in (0, 2, 4))
    assert speakers == [first, first, second, second, third, first]
    assert (report.clips, report.speakers, report.alone, report.duplicates) == (6, 3, 1, 1)


def test_only_new_shards_are_measured_and_a_repeated_call_changes_nothing(grouped, recipe):
    folder, report = grouped
    assert report.measured == 2
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = group_clips(recipe, folder, local=True)
    assert again.measured == 0 and (again.speakers, again.alone) == (report.speakers, report.alone)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_copy_names_its_original_and_its_share_of_equal_bits(grouped):
    (copy,) = read_duplicates(locate(grouped[0])).items()
    assert copy[0] == "copy" and copy[1].original == "clip-0" and copy[1].value > 0.65


def test_a_damaged_file_is_named_and_a_set_of_pairs_refused(grouped, recipe, tmp_path):
    folder, _ = grouped
    path = next((folder / "likeness").rglob("*.parquet"))
    content = path.read_bytes()
    path.write_bytes(content[:40])
    with pytest.raises(UserError, match=f"{path.name}: damaged"):
        group_clips(recipe, folder, local=True)
    path.write_bytes(content)
    assert len(read_measured(locate(path))) == 2
    with DataSet(tmp_path / "pairs", kind="pairs"):
        pass
    with pytest.raises(UserError, match="holds pairs"):
        group_clips(recipe, tmp_path / "pairs", local=True)


def test_pairs_reject_copies_and_clips_without_another_utterance_of_their_speaker(grouped, recipe):
    folder, _ = grouped
    manifest = read_manifest(folder)
    entries = read_entries(manifest)
    assert [entry.copy_of for entry in entries] == [None] * 5 + ["clip-0"]
    rows = {row.input: row for row in excluded_rows(entries, recipe)}
    assert {name: (row.status, row.check) for name, row in rows.items()} == {
        "copy": ("rejected", "duplicate"),
        "clip-4": ("rejected", "other_utterance"),
    }
    assert (rows["clip-4"].value, rows["clip-4"].threshold) == (0.0, 1.0)
    assert rows["copy"].value > rows["copy"].threshold == 0.65 and "clip-0" in rows["copy"].message
    units = plan_units(entries, recipe, generator_digest="d", seed=0)
    jobs = {job.key: job for unit in units for job in unit.jobs}
    assert jobs.keys() == {"clip-0", "clip-1", "clip-2", "clip-3"}
    # The speech of a copy is the clip's own.
    assert {choice.clip_id for _, choice in jobs["clip-0"].choices}.isdisjoint({"copy"})
    loose = replace(recipe, pairs=replace(recipe.pairs, require_other_utterance=False))
    assert [row.input for row in excluded_rows(entries, loose)] == ["copy"]
    assert loose.identity() == recipe.identity()
