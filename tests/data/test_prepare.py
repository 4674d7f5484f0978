"""Preparation of videos: correct clips, one result for every input, resumable; a bad file does not stop the others."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from xdub.config import load_recipe
from xdub.data.clip_checks import Rejected
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.prepare import Preparer, prepare_videos
from xdub.data.shards import iter_clips
from xdub.data.spans import find_spans, shortest_clip
from xdub.data.video_files import find_videos
from xdub.errors import UserError
from xdub.geometry import SAMPLES_PER_FRAME
from xdub.media import write_video
from xdub.perception.faces import FaceTrack


@dataclass(frozen=True)
class Film:
    """A rendered head that speaks, on a larger picture, and its truth in px of that picture."""

    path: Path
    frames: np.ndarray
    landmarks: np.ndarray
    audio: np.ndarray


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("tiny", ["video.size=64", "video.clip_frames=29", "video.crop_scale=1.0"])


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Film:
    from xdub.render.clips import make_clips

    pair = next(make_clips(7, [0], size=64, frames=62, full_size=256, crop_scale=1.0))
    frames = np.full((62, 300, 420, 3), 90, np.uint8)
    frames[:, 30:286, 100:356] = pair.full
    path = tmp_path_factory.mktemp("talks") / "anna.mp4"
    write_video(path, frames, audio=pair.clip.audio, crf=10)
    return Film(path, frames, pair.full_landmarks + np.float32([100, 30]), pair.clip.audio)


@pytest.fixture(scope="module")
def prepared(film, recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "ds"
    return out, prepare_videos([film.path], out, recipe, workers=1)


def test_a_video_becomes_clips_with_speech_landmarks_and_masks(film, prepared, recipe):
    out, result = prepared
    clips = list(iter_clips(out))
    assert [clip.num_frames for clip in clips] == [29, 29] and result.clips == 2
    for number, clip in enumerate(clips):
        start = 29 * number
        assert clip.source == f"{film.path.parent.name}/anna.mp4:{start}-{start + 29}"
        assert clip.frames.shape == (29, 64, 64, 3) and not clip.occluder_mask.any()
        speech = film.audio[start * SAMPLES_PER_FRAME :][: len(clip.audio)]
        assert np.corrcoef(clip.audio, speech)[0, 1] > 0.95
        mouth = clip.landmarks[:, 48:68].mean(axis=1)
        assert (mouth > 16).all() and (mouth < 60).all()
        picked = [clip.face_mask[n, int(y), int(x)] for n, (x, y) in enumerate(mouth)]
        assert all(picked) and 0.4 < clip.face_mask.mean() < 0.85 and clip.lip_mask.any(axis=(1, 2)).all()
    assert clips[0].speaker == clips[1].speaker


def test_crops_show_the_picture_inside_their_boxes(film, prepared, recipe):
    from xdub.data.transforms import crop, crop_boxes

    clip = next(iter_clips(prepared[0]))
    boxes = crop_boxes(film.landmarks, scale=recipe.video.crop_scale)[:29]
    expected = crop(film.frames[:29], boxes, 64).astype(float)
    # Boxes follow the tracker's points, which are up to a px from the truth, so compare blurred pictures.
    smooth = [cv2.GaussianBlur(f, (0, 0), 3) for f in (clip.frames[10].astype(float), expected[10])]
    assert np.abs(smooth[0] - smooth[1]).mean() < 8


def test_the_ledger_accounts_for_every_frame(prepared, film):
    rows = list(Ledger(prepared[0]).rows())
    assert [row.status for row in rows].count("kept") == 2
    rest = [row for row in rows if row.status == "rejected"]
    assert [(row.check, row.clip_id, row.value) for row in rest] == [("length", "frames 58-62", 4.0)]
    assert {row.input for row in rows} == {str(film.path)}


def test_a_second_run_adds_nothing(prepared, film, recipe):
    out, _ = prepared
    before = read_manifest(out).ids
    assert prepare_videos([film.path], out, recipe, workers=1).clips == 0
    assert read_manifest(out).ids == before


def test_a_renamed_or_copied_folder_adds_nothing(prepared, film, recipe, tmp_path):
    out, _ = prepared
    before, rows = read_manifest(out).ids, list(Ledger(out).rows())
    (tmp_path / "speeches").mkdir()
    shutil.copy(film.path, tmp_path / "speeches" / "other.mp4")
    result = prepare_videos([tmp_path / "speeches"], out, recipe, workers=1)
    assert (result.clips, result.settled) == (0, 1) and result.counts["kept"] == 2
    assert read_manifest(out).ids == before and list(Ledger(out).rows()) == rows


def test_bad_files_end_in_the_ledger_and_the_good_one_is_prepared(film, recipe, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "anna.mp4").write_bytes(film.path.read_bytes())
    (folder / "cut.mp4").write_bytes(film.path.read_bytes()[:20_000])
    (folder / "text.mp4").write_text("not a film")
    write_video(folder / "mute.mp4", film.frames[:30])
    write_video(folder / "silent.mp4", film.frames[:30], audio=np.zeros(16000, np.float32))
    write_video(folder / "short.mp4", film.frames[:10], audio=film.audio[:6400])
    write_video(folder / "wall.mp4", np.full((30, 120, 160, 3), 99, np.uint8), audio=film.audio[:19200])
    (folder / "notes.txt").write_text("ignored")
    result = prepare_videos([folder], tmp_path / "ds", recipe, workers=1)
    assert result.sources == 7 and result.clips == 2
    checks = {Path(r.input).stem: r.check for r in Ledger(tmp_path / "ds").rows() if not r.clip_id}
    assert checks == {
        "cut": "readable",
        "text": "readable",
        "mute": "audio",
        "silent": "sound",
        "short": "length",
        "wall": "face",
    }


def test_a_truncated_video_keeps_its_clips_and_a_row_counts_the_lost_frames(film, recipe, tmp_path):
    data, path = film.path.read_bytes(), tmp_path / "cut.mp4"
    with av.open(str(film.path)) as container:
        entries = container.streams.video[0].index_entries
        end = entries[40].pos
    path.write_bytes(data[:end])
    rows = [item for item in Preparer(recipe)(str(path)) if isinstance(item, LedgerRow)]
    (row,) = [row for row in rows if row.check == "damaged"]
    assert row.status == "rejected" and row.clip_id == f"frames {row.value:.0f}-62"
    assert 38 <= row.value <= 43 and row.threshold == 62
    assert row.message.startswith(f"{row.value:.0f} of 62 frames can be read: truncated: 22 of 62 frames")
    assert [row.status for row in rows][0] == "kept"


def test_a_video_beyond_its_time_limit_gets_a_row(film, recipe):
    (row,) = Preparer(recipe, limit=0.2)(str(film.path))
    assert (row.status, row.check, row.threshold) == ("rejected", "deadline", 0.2)
    assert row.value >= 0.2 and "anna.mp4: not finished after" in row.message


def test_a_run_without_a_clip_is_an_error_with_the_reason(recipe, tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", np.zeros((30, 64, 64, 3), np.uint8), audio=np.ones(16000) / 9)
    with pytest.raises(UserError, match="no clip could be created.*no face in any frame"):
        prepare_videos([tmp_path], tmp_path / "ds", recipe, workers=1)


def test_a_single_bad_input_creates_no_folder(recipe, tmp_path):
    (tmp_path / "x.mp4").write_text("nonsense")
    (tmp_path / "empty").mkdir()
    for source, text in [
        ("x.mp4", "not a readable"),
        ("gone.mp4", "no such file"),
        ("empty", "holds no video"),
    ]:
        with pytest.raises(UserError, match=text):
            prepare_videos([tmp_path / source], tmp_path / "ds", recipe)
        assert not (tmp_path / "ds").exists()
    with pytest.raises(UserError, match="no source"):
        find_videos([])


def track(has_face: np.ndarray, side: float = 100.0, cuts: tuple[int, ...] = ()) -> FaceTrack:
    """Build the track of a still face whose boxes have about ``side`` px."""
    points = np.zeros((len(has_face), 68, 2), np.float32)
    unit = side / 2.75
    corners = {36: (-0.72, 0), 39: (-0.28, 0), 42: (0.28, 0), 45: (0.72, 0), 33: (0, 0.76)}
    for index, (x, y) in corners.items():
        points[:, index] = (200 + x * unit, 200 + y * unit)
    points[~has_face] = np.nan
    starts = np.zeros(len(has_face), bool)
    starts[list(cuts)] = True
    return FaceTrack(
        landmarks68=points,
        landmarks478=None,
        detected=has_face,
        faces=has_face.astype(int),
        cuts=starts,
        height=400,
        width=400,
    )


def test_spans_end_at_gaps_and_cuts_and_short_spans_are_dropped(recipe):
    has_face = np.ones(120, bool)
    has_face[40:45] = False
    spans = find_spans(track(has_face, cuts=(80, 110)), recipe)
    assert [(s.start, s.end) for s in spans] == [(0, 40), (45, 80), (80, 110)]
    assert all(len(s.boxes) == len(s.landmarks) == s.end - s.start for s in spans)


def test_a_rejected_track_names_its_check_and_value(recipe):
    needed = shortest_clip(recipe)
    assert needed == 25
    cases = [
        (track(np.zeros(40, bool)), "face", 0.0),
        (track(np.ones(10, bool)), "length", 10.0),
        (track(np.ones(40, bool), cuts=(20,)), "face_frames", 20.0),
        (track(np.ones(40, bool), side=20.0), "face_size", pytest.approx(20.0, abs=1)),
    ]
    for case, check, value in cases:
        with pytest.raises(Rejected) as caught:
            find_spans(case, recipe)
        assert (caught.value.check, caught.value.value) == (check, value)
