"""The speaking one of two faces is tracked and cropped, and black bars are cut off."""

from __future__ import annotations

import numpy as np
import pytest

from xdub.config import load_recipe
from xdub.data.clip import Clip
from xdub.data.clip_checks import Rejected
from xdub.data.ledger import LedgerRow
from xdub.data.prepare import Preparer
from xdub.data.screening import check_speaker
from xdub.media import write_video
from xdub.perception.faces import FaceTrack, FaceTracker
from xdub.perception.other_faces import OtherFace, OtherFaces
from xdub.screen.active_speaker import follow_speaker, lip_voice, loudness
from xdub.screen.letterbox import LetterboxWatch

FRAMES = 46
BAR = 40
"""Rows of each black bar."""


@pytest.fixture(scope="module")
def two_heads():
    """Two people of the renderer who both move their lips to their own speech."""
    from xdub.render.clips import make_clips

    return list(make_clips(11, [0, 4], size=64, frames=FRAMES, full_size=192, crop_scale=1.0))


@pytest.fixture(scope="module")
def scene(two_heads) -> np.ndarray:
    """Both heads side by side between black bars: [46, 272, 384, 3]."""
    frames = np.zeros((FRAMES, 192 + 2 * BAR, 384, 3), np.uint8)
    for n, head in enumerate(two_heads):
        frames[:, BAR:-BAR, 192 * n : 192 * (n + 1)] = head.full
    return frames


@pytest.mark.parametrize("speaking", [0, 1])
def test_the_face_whose_lips_follow_the_voice_is_tracked(two_heads, scene, speaking, tracked):
    track, others = tracked
    assert len(others) == 1 and others[0].start == 0 and len(others[0].landmarks) == FRAMES
    result = follow_speaker(track, others, two_heads[speaking].clip.audio, piece=45)
    truth = two_heads[speaking].full_landmarks + np.float32([192 * speaking, BAR])
    assert np.abs(result.track.landmarks68 - truth).mean() < 4
    assert (result.faces == 2).all() and (result.lead > 0.15).all()
    # A track of one face does not change.
    alone = follow_speaker(track, [], two_heads[speaking].clip.audio, piece=45)
    assert np.array_equal(alone.track.landmarks68, track.landmarks68) and np.isnan(alone.lead).all()


@pytest.fixture(scope="module")
def tracked(scene):
    with FaceTracker() as tracker:
        others = OtherFaces(tracker.search)
        return tracker.track(scene, observer=others), others.faces


def test_a_speaker_scores_above_a_listener_and_above_other_lips(two_heads):
    voice = loudness(two_heads[0].clip.audio, FRAMES)
    own, other = (lip_voice(head.full_landmarks, voice) for head in two_heads)
    still = lip_voice(np.repeat(two_heads[0].full_landmarks[:1], FRAMES, 0), voice)
    lost = lip_voice(np.full((FRAMES, 68, 2), np.nan), voice)
    assert own > other + 0.15 > 0.15 and lost == 0 and abs(still) < 1e-6


def test_prepare_crops_the_speaker_within_the_bars_and_moves_late_sound_to_the_lips(
    two_heads, scene, tmp_path
):
    path = tmp_path / "talk.mp4"
    speech = two_heads[1].clip.audio
    write_video(path, scene, audio=np.concatenate([np.zeros(3 * 640, np.float32), speech]), crf=12)
    items = list(Preparer(load_recipe("tiny"))(str(path)))
    (clip,) = [item for item in items if isinstance(item, Clip)]
    kept = next(item for item in items if isinstance(item, LedgerRow) and item.status == "kept")
    assert kept.scores["letterbox"] == pytest.approx(2 * BAR / scene.shape[1], abs=0.01)
    assert (kept.scores["faces"], kept.scores["active_speaker.least"]) == (2.0, 0.15)
    assert kept.scores["active_speaker"] > 0.15
    assert kept.scores["offset"] == kept.scores["shift"] == 3 < kept.scores["offset.most"]
    assert np.corrcoef(clip.audio, speech[: len(clip.audio)])[0, 1] > 0.95
    # The right head's own crop is alike, and no bar is in the picture.
    right, left = (
        np.abs(clip.frames - head.clip.frames[:45].astype(float)).mean() for head in two_heads[::-1]
    )
    assert right < 20 < left


def test_a_clip_without_a_clear_speaker_is_rejected():
    faces, lead = np.full(9, 2), np.full(9, 0.1)
    with pytest.raises(Rejected) as caught:
        check_speaker(faces, lead, 0.15)
    assert (caught.value.check, caught.value.value, caught.value.threshold) == ("active_speaker", 0.1, 0.15)
    assert check_speaker(faces, lead + 0.1, 0.15)["active_speaker"] == pytest.approx(0.2)
    assert check_speaker(np.ones(9, int), lead * np.nan, 0.15) == {"faces": 1.0}


def talking_mouth(opening: np.ndarray, x: float) -> np.ndarray:
    """Return landmarks [F, 68, 2] of a still face at ``x`` whose lips open by ``opening`` [F] eye distances."""
    points = np.zeros((len(opening), 68, 2), np.float32)
    points[:, 36:42, 0], points[:, 42:48, 0] = x - 50, x + 50
    points[:, 60:68, 0], points[:, 60:68, 1] = x, 80
    points[:, 65:68, 1] += 100 * opening[:, None]
    return points


@pytest.mark.parametrize("turns", [[0, 0, 1, 0, 0], [0, 1, 0, 1, 0, 1]])
def test_people_of_one_shot_who_speak_in_turn_are_followed_piece_by_piece(turns):
    """Each piece has the face of its own speaker, so no clip shows a listener who speaks elsewhere in the shot."""
    piece, draw = 75, np.random.default_rng(0)
    count = piece * len(turns) + 20
    turn = np.append(np.repeat(turns, piece), [turns[-1]] * 20)
    syllables = np.repeat(draw.random(count // 5 + 1), 5)[:count]
    audio = np.repeat(10 ** (3 * syllables - 3), 640) * draw.normal(size=count * 640)
    left, right = (talking_mouth(0.3 * syllables * (turn == side), 300 * side + 100) for side in (0, 1))
    track = FaceTrack(
        landmarks68=left,
        landmarks478=None,
        detected=np.ones(count, bool),
        faces=np.full(count, 2),
        cuts=np.zeros(count, bool),
        height=400,
        width=600,
    )
    other = OtherFace(start=0, landmarks=list(right), bounds=[np.zeros(4, np.float32)] * count)
    result = follow_speaker(track, [other], audio.astype(np.float32), piece=piece)
    assert np.array_equal(result.track.landmarks68[:, 36, 0] > 200, turn)
    assert (result.lead > 0.5).all() and (result.faces == 2).all()
    assert np.array_equal(np.flatnonzero(result.track.cuts), np.flatnonzero(np.diff(turn)) + 1)
    assert not track.cuts.any()


def test_a_clip_of_two_pieces_has_the_lead_of_the_unclear_one():
    with pytest.raises(Rejected):
        check_speaker(np.full(9, 2), np.float32([0.9] * 6 + [0.1] * 3), 0.15)
    assert check_speaker(np.full(3, 2), np.float32([np.nan, 0.9, 0.9]), 0.15)[
        "active_speaker"
    ] == pytest.approx(0.9)


def test_bars_are_found_beside_dark_pictures_logos_and_without_bars(scene):
    def area(frames: np.ndarray):
        watch = LetterboxWatch()
        assert sum(1 for _ in watch.watch(frames)) == len(frames)
        return watch.area()

    whole = scene[:13]
    picture = area(whole)
    assert (picture.top, picture.bottom, picture.left, picture.right) == (BAR, 192 + BAR, 0, 384)
    assert picture.cut(whole[0]).shape == (192, 384, 3)
    logo = whole.copy()
    logo[:, 8:16, 6:12] = 200
    assert area(logo).top == BAR
    flash = whole.copy()
    flash[12, :BAR] = 120
    assert area(flash).top == 0
    thin = whole[:, BAR - 3 : 192 + BAR]
    assert area(thin) is None and area(whole[:, BAR:-BAR]) is None
    assert area(whole * 0) is None and area(whole // 8) is None and area(whole[:0]) is None
