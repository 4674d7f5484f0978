"""Import of a user's own pairs: twins in video files are kept; every other scene ends in the ledger with a reason."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from xdub.cli import app
from xdub.cli.errors import run_app
from xdub.config import Recipe, load_recipe
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.prepare import Preparer
from xdub.data.shards import iter_clips
from xdub.demo.cases import write_wav
from xdub.errors import UserError
from xdub.geometry import SAMPLES_PER_FRAME
from xdub.media import write_video
from xdub.pairs.factory import build_pairs
from xdub.pairs.importer import SceneImporter, import_pairs
from xdub.pairs.testing import plain_judges
from xdub.render import RenderedPair, make_clips

FRAMES = 25
RECIPE = ("video.size=64", f"video.clip_frames={FRAMES}", "video.crop_scale=1.0")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("tiny", list(RECIPE))


@pytest.fixture(scope="module")
def people() -> list[RenderedPair]:
    """Two people without occluders, whose twins speak other sentences."""
    pairs = []
    for pair in make_clips(3, range(4, 40, 4), size=64, frames=FRAMES, full_size=256):
        if not pair.clip.occluder_mask.any():
            pairs.append(pair)
        if len(pairs) == 2:
            break
    return pairs


def _film(path: Path, frames: np.ndarray, audio: np.ndarray | None = None, fps: float = 25.0) -> None:
    write_video(path, frames, fps, audio=audio, crf=8)


def _scene(folder: Path, pair: RenderedPair, dubbed: np.ndarray | None = None, **options) -> Path:
    """Write a scene of the pair's clip and ``dubbed``, by default its twin."""
    folder.mkdir(parents=True)
    _film(folder / "original.mp4", pair.full, pair.clip.audio)
    _film(folder / "dubbed.mp4", pair.twin_full if dubbed is None else dubbed, **options)
    return folder


@pytest.fixture(scope="module")
def scenes(people, tmp_path_factory) -> Path:
    """One scene of every kind, by name."""
    one, other = people
    src = tmp_path_factory.mktemp("unreal")
    _scene(src / "anna" / "aligned", one)
    _scene(src / "same", one, one.full)
    _scene(src / "stranger", one, other.full)
    _scene(src / "mirrored", one, one.twin_full[:, :, ::-1])
    _scene(src / "shifted", one, np.roll(one.twin_full, 4, axis=2))
    _scene(src / "lower", one, np.roll(one.twin_full, 3, axis=1))
    _scene(src / "late", one, np.concatenate([one.twin_full[:2], one.twin_full[:-2]]))
    _scene(src / "short", one, one.twin_full[:-3])
    _scene(src / "small", one, one.twin_full[:, ::2, ::2])
    _scene(src / "fast", one, fps=30.0)
    _scene(src / "photo", replace(one, full=np.repeat(one.full[3:4], FRAMES, axis=0)))
    noise = np.random.default_rng(0).normal(0, 6, one.full.shape)
    _scene(src / "photo_dub", one, np.clip(one.twin_full[3:4] + noise, 0, 255).astype(np.uint8))
    (_scene(src / "alone", one) / "dubbed.mp4").unlink()
    # A folder without videos is no scene.
    (src / "notes").mkdir()
    return src


@pytest.fixture(scope="module")
def imported(scenes, recipe, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pairs") / "out"
    result = import_pairs([scenes], out, recipe, workers=1)
    assert (result.clips, result.sources) == (1, 13)
    return out


@pytest.fixture(scope="module")
def results(imported) -> dict[str, LedgerRow]:
    """Ledger rows by the scene's name."""
    rows = list(Ledger(imported).rows())
    # Each scene has one row, because no clip is longer than FRAMES.
    assert len({row.input for row in rows}) == len(rows) == 13
    return {Path(row.input).name: row for row in rows}


def test_an_aligned_twin_is_a_pair_of_target_and_reference(imported, results, people) -> None:
    (pair,) = iter_clips(imported)
    row = results["aligned"]
    assert (row.status, row.clip_id) == ("kept", pair.clip_id)
    assert row.scores == pair.scores and {"identity", "mouth_distance", "outside"} <= pair.scores.keys()
    assert pair.frames.shape == pair.reference.shape == (FRAMES, 64, 64, 3)
    assert np.corrcoef(pair.audio, people[0].clip.audio)[0, 1] > 0.95
    # V is the original and lies on the renderer's V, the reference on the twin.
    change = np.abs(pair.frames.astype(int) - pair.reference).mean(-1)
    assert change[~pair.face_mask].mean() < 2 < change[pair.lip_mask].mean()
    assert read_manifest(imported).kind == "pairs"


def test_equal_lips_are_rejected(results) -> None:
    row = results["same"]
    assert (row.status, row.check, row.threshold) == ("rejected", "mouth_distance", 0.6)
    assert row.value == row.scores["mouth_distance"] < 0.3


def test_a_video_that_stands_still_is_rejected_on_either_side(results) -> None:
    row = results["photo"]
    assert (row.status, row.check, row.clip_id) == ("rejected", "still", f"frames 0-{FRAMES}")
    assert row.value > row.threshold == 0.4
    assert results["photo_dub"].status == "rejected"


def test_another_person_is_rejected(results) -> None:
    assert results["stranger"].status == "rejected"
    assert results["stranger"].check in ("outside", "shift", "identity")


@pytest.mark.parametrize("name", ["mirrored", "shifted", "lower", "late"])
def test_a_displaced_video_is_rejected_by_alignment(results, name: str) -> None:
    assert (results[name].status, results[name].check in ("outside", "shift", "delay")) == ("rejected", True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("short", "length in frames (original.mp4 25, dubbed.mp4 22)"),
        ("small", "size (original.mp4 256x256, dubbed.mp4 128x128)"),
        ("fast", "frame rate (original.mp4 25.000, dubbed.mp4 30.000)"),
        ("alone", "dubbed.mp4 is missing"),
    ],
)
def test_files_that_cannot_be_a_pair_fail_with_the_reason_in_one_line(results, name: str, words: str) -> None:
    assert results[name].status == "failed"
    assert words in results[name].message and "\n" not in results[name].message


def test_a_second_run_adds_nothing_and_tries_corrected_scenes_again(
    imported, scenes, recipe, people, tmp_path
) -> None:
    src, out = tmp_path / "src", tmp_path / "out"
    shutil.copytree(scenes / "anna", src / "anna")
    shutil.copytree(scenes / "alone", src / "alone")
    assert import_pairs([src], out, recipe, workers=1).clips == 1
    before, rows = read_manifest(out).ids, list(Ledger(out).rows())
    # An id depends on the content of the files only.
    assert before == read_manifest(imported).ids
    second = import_pairs([src], out, recipe, workers=1)
    assert (second.clips, second.settled) == (0, 1)
    assert read_manifest(out).ids == before and len(list(Ledger(out).rows())) == len(rows) == 2
    # Another folder with the same files is the same scene.
    (tmp_path / "link").symlink_to(shutil.move(src, tmp_path / "moved"))
    moved = import_pairs([tmp_path / "link"], out, recipe, workers=1)
    assert (moved.clips, moved.settled) == (0, 1) and len(list(Ledger(out).rows())) == 2
    shutil.move(tmp_path / "moved", src)
    # The video is of another person, so the scene is rejected instead of failed.
    _film(src / "alone" / "dubbed.mp4", people[1].twin_full)
    import_pairs([src], out, recipe, workers=1)
    assert sorted(row.status for row in Ledger(out).rows()) == ["kept", "rejected"]
    assert (out / "filters.png").is_file()


def test_a_separate_sound_file_must_be_as_long_as_the_video(people, recipe, tmp_path) -> None:
    pair = people[0]
    for name, frames in (("fits", FRAMES), ("long", 2 * FRAMES)):
        folder = tmp_path / "src" / name
        folder.mkdir(parents=True)
        _film(folder / "original.mp4", pair.full)
        _film(folder / "dubbed.mp4", pair.twin_full)
        sound = np.resize(pair.clip.audio, frames * SAMPLES_PER_FRAME)
        write_wav(folder / "audio.wav", sound)
    silent = tmp_path / "src" / "silent"
    shutil.copytree(tmp_path / "src" / "fits", silent)
    (silent / "audio.wav").unlink()
    import_pairs([tmp_path / "src"], tmp_path / "out", recipe, workers=1)
    rows = {Path(row.input).name: row for row in Ledger(tmp_path / "out").rows()}
    assert {name: row.status for name, row in rows.items()} == {
        "fits": "kept", "long": "failed", "silent": "failed",
    }  # fmt: skip
    assert "audio.wav lasts 2.00 s, original.mp4 1.00 s" in rows["long"].message
    assert "has no sound and there is no audio.wav" in rows["silent"].message
    (kept,) = iter_clips(tmp_path / "out")
    np.testing.assert_allclose(kept.audio, pair.clip.audio, atol=1e-4)


def test_a_folder_of_pairs_is_continued_only_with_the_same_crops_and_filters(
    imported, scenes, recipe, tmp_path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(imported, out)
    stricter = replace(recipe, pairs=replace(recipe.pairs, identity_threshold=0.99))
    with pytest.raises(UserError, match="pairs created with another pairs.identity_threshold"):
        import_pairs([scenes], out, stricter, workers=1)
    other = "lower" if recipe.masks.face != "lower" else "mesh"
    with pytest.raises(UserError, match="pairs created with another masks"):
        import_pairs([scenes], out, replace(recipe, masks=replace(recipe.masks, face=other)), workers=1)


def test_damage_of_a_scene_is_recorded_beside_its_pair(scenes, recipe, monkeypatch) -> None:
    def losses(preparer: Preparer, source: str) -> Iterator[LedgerRow]:
        yield LedgerRow(input=source, status="rejected", check="damaged_sound")

    monkeypatch.setattr(Preparer, "losses", losses)
    items = list(SceneImporter(recipe, plain_judges())(str(scenes / "anna" / "aligned")))
    assert [item.check for item in items if isinstance(item, LedgerRow)][-1] == "damaged_sound"


def test_imported_pairs_are_added_to_generated_ones_and_a_pair_run_continues(
    models, data, scenes, tmp_path
) -> None:
    folder, recipe = models
    build = partial(build_pairs, recipe, folder, data, tmp_path, local=True, judges=plain_judges())
    build()
    generated = read_manifest(tmp_path).ids
    import_pairs([scenes / "anna"], tmp_path, recipe, workers=1, judges=plain_judges())
    both = read_manifest(tmp_path, verify=True).ids
    assert both[:-1] == generated and len(both) == len(generated) + 1
    build()
    assert read_manifest(tmp_path).ids == both
    assert {pair.frames.shape[1:] for pair in iter_clips(tmp_path)} == {(32, 32, 3)}


def test_bad_folders_are_user_errors_of_one_line(scenes, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    for source, words in (
        (tmp_path / "none", "no such folder"),
        (tmp_path / "empty", "holds no original.mp4"),
        (scenes / "alone", "no pair could be created"),
    ):
        assert (
            run_app(app, ["import-pairs", str(source), "--out", str(tmp_path / "o"), "--workers", "1"]) == 2
        )
        output = capsys.readouterr().err
        assert words in output and output.splitlines()[-1].startswith("xdub: error: ")
