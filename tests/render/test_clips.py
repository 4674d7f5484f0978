"""Tests of rendered clips: they are deterministic, their truth fits the pixels, and twins differ by speech alone."""

from __future__ import annotations

import numpy as np
import pytest

from xdub.errors import UserError
from xdub.render import make_clips, render_full_clip, truth
from xdub.render.clips import FIRST_HELD_OUT, TAKES
from xdub.render.gl import Rasteriser
from xdub.render.scene import draw_surroundings
from xdub.seeding import rng

SMALL = {"size": 48, "frames": 9, "full_size": 128}


@pytest.fixture(scope="module")
def pairs():
    return list(make_clips(0, [0, TAKES], **SMALL))


@pytest.fixture(scope="module")
def long_pair():
    return next(make_clips(3, [8], size=80, frames=45, full_size=256))


def test_arrays_of_a_rendered_clip_have_the_shapes_of_the_clip_record(pairs):
    for pair in pairs:
        for clip, full in ((pair.clip, pair.full), (pair.twin, pair.twin_full)):
            assert clip.frames.shape == (9, 48, 48, 3) and full.shape == (9, 128, 128, 3)
            assert clip.audio.shape == (9 * 640,) and clip.opening is not None
            assert np.isfinite(clip.landmarks).all()


def test_rendering_a_clip_again_gives_the_same_bits(pairs):
    again = next(make_clips(0, [0], **SMALL))
    assert np.array_equal(again.full, pairs[0].full) and np.array_equal(again.twin_full, pairs[0].twin_full)
    assert np.array_equal(again.clip.audio, pairs[0].clip.audio)
    assert again.clip.clip_id == pairs[0].clip.clip_id


def test_a_clip_stays_the_same_after_another_size_was_rendered(pairs):
    other = next(make_clips(0, [0], size=48, frames=9, full_size=96))
    assert other.full.shape == (9, 96, 96, 3)
    assert np.array_equal(next(make_clips(0, [0], **SMALL)).full, pairs[0].full)


def test_a_clip_does_not_depend_on_the_clips_before_it(pairs):
    alone = next(make_clips(0, [TAKES], **SMALL))
    assert np.array_equal(alone.full, pairs[1].full)


def test_two_takes_of_a_person_share_the_identity_and_differ_in_pixels_and_sound():
    first, second = list(make_clips(0, [0, 1], **SMALL))
    assert first.identity == second.identity and first.clip.speaker == second.clip.speaker
    assert not np.array_equal(first.full, second.full)
    assert not np.array_equal(first.clip.audio, second.clip.audio)


def test_twins_name_their_clip_and_share_everything_but_speech(long_pair):
    clip, twin = long_pair.clip, long_pair.twin
    assert twin.twin_of == clip.clip_id and clip.twin_of is None and clip.clip_id != twin.clip_id
    assert not np.array_equal(clip.audio, twin.audio)
    assert np.array_equal(clip.face_mask, twin.face_mask)
    upper = [*range(17, 27), *range(36, 48)]
    assert np.abs(clip.landmarks[:, upper] - twin.landmarks[:, upper]).max() < 0.6
    assert abs(np.corrcoef(clip.opening, twin.opening)[0, 1]) < 0.9


def test_twins_are_bit_equal_from_the_eyes_up(long_pair):
    changed = (long_pair.full != long_pair.twin_full).any(-1)
    assert changed.any()
    for frame in range(len(changed)):
        lids = long_pair.full_landmarks[frame, 36:48, 1].min()
        assert not changed[frame, : int(lids) - 1].any(), frame


def test_a_twin_drawn_within_the_changed_boxes_equals_a_twin_drawn_whole(monkeypatch, pairs):
    draw = Rasteriser.draw

    def draw_all(self, moving, box):
        x0, y0, x1, y1 = box
        return draw(self, moving)[y0:y1, x0:x1]

    def whole_frames(avatar, one, other, motion, camera, size):
        return [(0, 0, size, size)] * len(one)

    monkeypatch.setattr(Rasteriser, "draw", draw_all)
    monkeypatch.setattr(truth, "changed_boxes", whole_frames)
    for pair, index in zip(pairs, (0, TAKES), strict=True):
        again = next(make_clips(0, [index], **SMALL))
        assert np.array_equal(again.twin_full, pair.twin_full)


def test_the_face_mask_covers_what_speech_moves_and_never_follows_it(long_pair):
    differs = np.abs(long_pair.clip.frames.astype(int) - long_pair.twin.frames).max(-1) > 40
    inside = (differs & long_pair.clip.face_mask).sum() / differs.sum()
    assert inside > 0.93


def test_opening_is_zero_with_lips_shut_and_follows_the_landmarks(long_pair):
    clip = long_pair.clip
    gap = np.linalg.norm(clip.landmarks[:, [61, 62, 63]] - clip.landmarks[:, [67, 66, 65]], axis=-1).mean(1)
    assert np.corrcoef(clip.opening, gap)[0, 1] > 0.97
    assert clip.opening.min() < 0.05 < 0.2 < clip.opening.max()


def test_the_mouth_is_dark_when_wide_open(long_pair):
    clip = long_pair.clip
    wide, shut = int(clip.opening.argmax()), int(clip.opening.argmin())

    def middle(frame: int) -> float:
        x, y = clip.landmarks[frame, [62, 66]].mean(0)
        return float(clip.frames[frame, int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].mean())

    assert middle(wide) < 0.7 * middle(shut)


def test_the_mouth_fills_about_a_third_of_the_crop_s_width(long_pair):
    mouth = long_pair.clip.landmarks[:, 54] - long_pair.clip.landmarks[:, 48]
    assert 0.2 < np.linalg.norm(mouth, axis=1).mean() / 80 < 0.42
    assert long_pair.clip.landmarks[:, 17:].min() > -4 and long_pair.clip.landmarks[:, 17:].max() < 84


def test_about_15_percent_of_the_clips_are_occluded_and_have_an_occluder_mask():
    grey = np.full(3, 0.4)
    scenes = [draw_surroundings(rng("render", 1, "scene", index), 8, 45, grey) for index in range(150)]
    covered = [index for index, scene in enumerate(scenes) if scene.occluder is not None]
    assert 10 <= len(covered) <= 38
    shares = []
    for pair in make_clips(1, covered[:3], size=32, frames=45, full_size=64):
        assert np.array_equal(pair.clip.occluder_mask, pair.twin.occluder_mask)
        shares.append((pair.clip.occluder_mask & pair.clip.face_mask).any((1, 2)).mean())
    assert max(shares) > 0.2
    clear = next(index for index in range(150) if index not in covered)
    assert not next(make_clips(1, [clear], size=32, frames=3, full_size=64)).clip.occluder_mask.any()


def test_a_held_out_clip_comes_from_the_reserved_range():
    pair = render_full_clip(0, 2, 0.4, full_size=96)
    assert pair.clip.num_frames == 10 and pair.full.shape == (10, 96, 96, 3)
    assert pair.identity >= FIRST_HELD_OUT // TAKES
    assert pair.clip.source == f"render:0/{FIRST_HELD_OUT + 2}"


def test_numbers_out_of_range_are_user_errors_that_name_the_argument():
    for arguments in ({"size": 2}, {"frames": 0}, {"full_size": 8}):
        with pytest.raises(UserError, match=next(iter(arguments))):
            next(make_clips(0, [0], **{**SMALL, **arguments}))
    with pytest.raises(UserError, match="index -1"):
        next(make_clips(0, [-1], **SMALL))
    with pytest.raises(UserError, match="seconds"):
        render_full_clip(0, 0, 0.0)
