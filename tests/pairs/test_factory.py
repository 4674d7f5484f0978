"""A pair run: every input is processed once, and a run that is killed at any time ends with the same pairs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xdub.config import Recipe, load_recipe
from xdub.data.clip import to_row
from xdub.data.dataset import DataSet
from xdub.data.ledger import STATUSES, Ledger, LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.shard_files import write_shard
from xdub.data.shards import ShardWriter, iter_clips
from xdub.data.testing import make_clip
from xdub.errors import UserError
from xdub.files.content import file_sha256
from xdub.model.bundle import bundle_path
from xdub.pairs.factory import PairReport, build_pairs
from xdub.pairs.testing import plain_judges


def _build(models: tuple[Path, Recipe], data: Path, out: Path, **options) -> PairReport:
    folder, recipe = models
    return build_pairs(recipe, folder, data, out, judges=plain_judges(), **({"local": True} | options))


def _content(out: Path) -> dict[str, str]:
    """Return the shards' hashes, and the ids in order."""
    manifest = read_manifest(out, verify=True)
    return {shard.file: shard.sha256 for shard in manifest.shards} | {"ids": " ".join(manifest.ids)}


@pytest.fixture(scope="module")
def undisturbed(models, data, tmp_path_factory) -> tuple[Path, PairReport]:
    out = tmp_path_factory.mktemp("pairs")
    return out, _build(models, data, out)


def test_every_clip_has_one_row_in_the_ledger_and_every_kept_one_a_pair(undisturbed, data) -> None:
    out, report = undisturbed
    rows = list(Ledger(out).rows())
    clips = set(read_manifest(data).ids)
    assert sorted(row.input for row in rows if "+" not in row.input) == sorted(clips)
    exact = [row for row in rows if "+" in row.input]
    assert len(exact) == 2  # both directions
    assert report.inputs == len(rows) == sum(report.counts[status] for status in STATUSES)
    assert report.counts == Ledger(out).counts()
    assert sorted(row.clip_id for row in rows if row.status == "kept") == sorted(read_manifest(out).ids)
    assert report.counts["kept"] >= 5 and report.counts["failed"] == 0
    assert all(row.worker and row.seconds > 0 for row in rows)
    assert all("speech=" in row.message for row in rows)


def test_a_pair_is_its_clip_with_a_reference_that_differs_in_the_face_only(undisturbed, data) -> None:
    out, _ = undisturbed
    clips = {clip.clip_id: clip for clip in iter_clips(data)}
    clip_of = {row.clip_id: row.input.split("+")[0] for row in Ledger(out).rows()}
    relit = 0
    for pair in iter_clips(out):
        clip = clips[clip_of[pair.clip_id]]
        np.testing.assert_array_equal(pair.audio, clip.audio)
        np.testing.assert_array_equal(pair.face_mask, clip.face_mask)
        assert pair.num_frames == clip.num_frames
        relit += "relit" in pair.scores
        if "relit" not in pair.scores:
            # The frames went twice through a nearly lossless codec.
            assert np.abs(pair.frames.astype(int) - clip.frames).mean() < 3
        if "pair:twin" not in pair.source:
            change = np.abs(pair.frames.astype(int) - pair.reference).mean(-1)
            assert change[~clip.visible_mask].mean() < 3 < change[clip.visible_mask].mean()
        assert {"mouth_distance", "identity", "outside"} <= pair.scores.keys()
        joined = pair.num_frames > 25 and "pair:twin" not in pair.source
        assert ("seam" in pair.scores) == joined


def test_the_ledger_holds_the_scores_of_kept_and_rejected_pairs_alike(
    undisturbed, models, data, tmp_path
) -> None:
    out, _ = undisturbed
    kept = {row.clip_id: row.scores for row in Ledger(out).rows() if row.status == "kept"}
    for pair in iter_clips(out):
        assert {name: value for name, value in pair.scores.items() if name != "relit"} == kept[pair.clip_id]
    folder, recipe = models
    strict = replace(recipe, pairs=replace(recipe.pairs, mouth_threshold=1e6))
    _build((folder, strict), data, tmp_path)
    rows = list(Ledger(tmp_path).rows())
    assert {(row.status, row.check) for row in rows} >= {("rejected", "mouth_distance")}
    rows = [row for row in rows if row.check == "mouth_distance"]
    assert all(row.scores["mouth_distance"] == row.value and "identity" in row.scores for row in rows)


def test_a_second_run_adds_nothing_and_draws_nothing(undisturbed, models, data) -> None:
    out, report = undisturbed
    before, drawn = _content(out), (out / "filters.png").stat().st_mtime_ns
    reports = []
    second = _build(models, data, out, on_progress=lambda *state: reports.append(state))
    assert _content(out) == before and (out / "filters.png").stat().st_mtime_ns == drawn
    assert second.counts == report.counts
    assert reports[0][0] == reports[0][1] == report.inputs and second.steps == {}


def test_imported_pairs_in_the_folder_are_not_counted(undisturbed, models, data, tmp_path) -> None:
    """Imported pairs count neither during the run nor at its end, and their failures do not stop it."""
    _, report = undisturbed
    with Ledger(tmp_path) as ledger:
        for n, status in enumerate(["kept", "kept", "rejected", *["failed"] * 9]):
            ledger.add(LedgerRow(input=f"unreal/scene-{n}", clip_id=str(n), status=status, seconds=1e6))
    journal: list[str] = []
    second = _build(models, data, tmp_path, on_progress=lambda done, total, text: journal.append(text))
    assert second.counts == report.counts and second.inputs == report.inputs
    assert journal[0].startswith("0 kept, 0 rejected, 0 failed")
    assert journal[-1].startswith(str(report.counts))
    assert len(list(Ledger(tmp_path).rows())) == report.inputs + 12


class _Stop(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interrupted_run_continues_to_the_same_pairs(undisturbed, models, data, tmp_path, after) -> None:
    calls = []

    def interrupt(*state) -> None:
        calls.append(state)
        if len(calls) == after + 1:
            raise _Stop

    with pytest.raises(_Stop):
        _build(models, data, tmp_path, on_progress=interrupt)
    _build(models, data, tmp_path)
    assert _content(tmp_path) == _content(undisturbed[0])
    facts = [
        {(row.input, row.status, row.clip_id) for row in Ledger(out).rows()}
        for out in (tmp_path, undisturbed[0])
    ]
    assert facts[0] == facts[1]


def test_a_lost_ledger_is_rebuilt_without_duplicate_pairs(undisturbed, models, data, tmp_path) -> None:
    _build(models, data, tmp_path)
    before = _content(tmp_path)
    shutil.rmtree(tmp_path / "ledger")
    _build(models, data, tmp_path)
    assert _content(tmp_path) == before
    assert len(list(Ledger(tmp_path).rows())) == undisturbed[1].inputs


KILLED = """
import sys
from pathlib import Path
from xdub.config import load_recipe
from xdub.model.bundle import bundle_path
from xdub.pairs.factory import build_pairs
from xdub.pairs.testing import plain_judges
folder, data, out, local = sys.argv[1:]
def report(done, total, text=""):
    print(done, flush=True)
build_pairs(load_recipe(Path(folder) / "recipe.yaml"), folder, data, out, workers=2, judges=plain_judges(),
            local=local == "local", on_progress=report)
"""


def test_a_driver_killed_at_any_moment_leaves_no_partial_file(undisturbed, models, data, tmp_path) -> None:
    arguments = [sys.executable, "-c", KILLED, str(models[0]), str(data), str(tmp_path), "local"]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert process.stdout is not None
    for line in process.stdout:
        # One unit is committed and the next one is running.
        if int(line) >= 2:
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _build(models, data, tmp_path)
    assert _content(tmp_path)["ids"] == _content(undisturbed[0])["ids"]
    assert len(list(Ledger(tmp_path).rows())) == undisturbed[1].inputs
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".shard-", ".manifest"))]


def test_a_damaged_clip_fails_alone_and_too_many_failures_end_the_run(models, tmp_path) -> None:
    rows = [to_row(make_clip(seed, num_frames=5)) for seed in range(8)]

    def damaged(count: int) -> Path:
        folder = tmp_path / f"{count} damaged"
        cut = [row | {"frames": row["frames"][:100]} for row in rows[:count]]
        with DataSet(folder) as data:
            data.commit([write_shard(folder, [*cut, *rows[count:]])])
        return folder

    report = _build(models, damaged(1), tmp_path / "one")
    assert (report.counts["failed"], report.counts["kept"]) == (1, 7)
    failed = [row for row in Ledger(tmp_path / "one").rows() if row.status == "failed"]
    assert "damaged" in failed[0].message
    with pytest.raises(UserError, match="of 8 inputs failed"):
        _build(models, damaged(4), tmp_path / "many")


def test_tiny_names_the_shipped_generator_in_any_working_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A folder of that name is given as ./tiny.
    (tmp_path / "tiny").mkdir()
    with ShardWriter(tmp_path / "clips") as writer:
        writer.add(make_clip(0, num_frames=25, size=64))
    report = build_pairs(load_recipe("tiny"), "tiny", "clips", "out", local=True, judges=plain_judges())
    assert (report.inputs, report.counts["failed"]) == (1, 0)
    digest = read_manifest("out").recipe["generator"]
    assert digest == file_sha256(bundle_path("tiny") / "generator.safetensors")


def test_bad_input_is_a_user_error_of_one_line(models, data, undisturbed, tmp_path) -> None:
    folder, recipe = models
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    cases = [
        (dict(generator=tmp_path / "none"), "no such folder"),
        (dict(generator=tmp_path / "empty"), "holds none of"),
        (dict(generator=tmp_path / "broken.safetensors"), "not a readable safetensors file"),
        (dict(data=tmp_path / "empty"), "not a data set"),
        (dict(data=undisturbed[0]), "holds pairs"),
        (dict(out=data), "holds clips"),
        (dict(workers=0), "workers=0"),
        (dict(out=undisturbed[0], seed=7), "was built with another pair_seed"),
    ]
    for changes, words in cases:
        arguments = {"recipe": recipe, "generator": folder, "data": data, "out": tmp_path / "out"} | changes
        with pytest.raises(UserError, match=words) as error:
            build_pairs(**arguments, local=True, judges=plain_judges())
        assert "\n" not in str(error.value)
