"""Every check of a clip passes good footage, rejects bad footage, and records its value and threshold."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from xdub.config import load_recipe
from xdub.errors import UserError
from xdub.perception.face_mesh import POSE_POINTS
from xdub.screen.check import Footage
from xdub.screen.pictures import Exposure, Pose, Sharpness, head_angles
from xdub.screen.screen import Screen, missing_sync
from xdub.screen.speech import Speech


@pytest.fixture(scope="module")
def screen() -> Screen:
    return Screen(load_recipe("tiny"))


def test_a_good_clip_passes_and_every_value_and_bound_is_recorded(screen, speaker, footage_of):
    result = screen(footage_of(speaker))
    assert result.failure is None and result.shift == 0
    assert result.scores.keys() == {
        *("clipped", "clipped.most", "contrast", "contrast.least", "sharpness", "sharpness.least"),
        *("yaw", "yaw.most", "pitch", "pitch.most", "speech", "speech.least"),
        *("offset", "offset.least", "offset.most", "offset_confidence"),
    }


def test_blurred_faces_fail_and_slightly_soft_ones_pass(speaker, footage_of):
    def blurred(sigma: float) -> np.ndarray:
        return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in speaker.frames])

    check = Sharpness(20.0)
    (soft,), (blur,) = (check.measure(footage_of(speaker, frames=blurred(s))) for s in (0.5, 2.5))
    assert soft.passed and not blur.passed
    assert (blur.threshold, blur.value < 20 < soft.value) == (20.0, True)
    # Light does not count as blur.
    (dark,) = check.measure(footage_of(speaker, frames=speaker.frames // 3))
    assert dark.passed


def test_dark_flat_and_overexposed_faces_fail(speaker, footage_of):
    check = Exposure(0.25, 20.0)

    def failures(frames: np.ndarray) -> set[str]:
        measured = check.measure(footage_of(speaker, frames=frames.astype(np.uint8)))
        return {one.name for one in measured if not one.passed}

    frames = speaker.frames.astype(np.float32)
    assert failures(frames) == failures(frames * 0.5) == failures(np.minimum(frames * 1.2, 255)) == set()
    assert failures(frames * 0.08) >= {"contrast"}
    assert failures(110 + frames * 0.05) == {"contrast"}
    assert failures(np.minimum(frames * 4, 255)) >= {"clipped"}


def test_turned_heads_fail(speaker):
    index = list(POSE_POINTS)
    model = np.array([POSE_POINTS[i] for i in index])

    def landmarks(yaw: float, pitch: float) -> np.ndarray:
        a, b = np.radians([yaw, pitch])
        turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
        nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        points = np.zeros((3, 68, 2), np.float32)
        points[:, index] = 100 + 30 * (model @ (nod @ turn).T)[:, :2]
        return points

    for yaw, pitch in [(0, 0), (35, 0), (-35, 0), (0, 20), (60, 0)]:
        angles = [float(np.median(values)) for values in head_angles(landmarks(yaw, pitch))]
        # The prior of a frontal head draws the estimate towards it.
        assert abs(abs(angles[0]) - abs(yaw)) < 5 and abs(abs(angles[1]) - abs(pitch)) < 12

    def verdict(yaw: float) -> bool:
        footage = Footage(frames=speaker.frames[:3], landmarks=landmarks(yaw, 0), sound=speaker.sound)
        return all(one.passed for one in Pose(50.0, 50.0).measure(footage))

    assert verdict(30) and verdict(-40) and not verdict(70) and not verdict(-70)


def test_speech_passes_and_noise_tones_and_silence_fail(speaker, footage_of):
    check = Speech(0.25)
    times = np.arange(len(speaker.sound)) / 16000
    draw = np.random.default_rng(0)
    others = {
        "noise": 0.05 * draw.normal(size=len(times)),
        "chord": sum(0.05 * np.sin(2 * np.pi * hertz * times) for hertz in (220, 277, 330)),
        "silence": np.zeros(len(times)),
    }
    (speech,) = check.measure(footage_of(speaker))
    assert speech.passed and speech.value > 0.5
    for name, sound in others.items():
        (measured,) = check.measure(footage_of(speaker, sound=sound.astype(np.float32)))
        assert not measured.passed and measured.threshold == 0.25, name


def test_black_single_and_faceless_frames_fail_without_an_error(screen, speaker):
    bad = {
        "black": (speaker.frames * 0, speaker.landmarks, speaker.sound),
        "one frame": (speaker.frames[:1], speaker.landmarks[:1], speaker.sound[: 51 * 640]),
        "no face": (speaker.frames, np.full_like(speaker.landmarks, np.nan), speaker.sound),
        "silent": (speaker.frames, speaker.landmarks, speaker.sound * 0),
    }
    for name, (frames, landmarks, sound) in bad.items():
        result = screen(Footage(frames=frames, landmarks=landmarks, sound=sound))
        assert result.failure is not None and result.failure.threshold is not None, name


def test_a_check_without_a_threshold_is_off(speaker, footage_of):
    off = [f"screen.{name}=null" for name in ("sharpness", "clipped", "contrast", "yaw", "pitch", "speech")]
    screen = Screen(load_recipe("tiny", [*off, "screen.shift=null"]))
    assert screen(footage_of(speaker, frames=speaker.frames * 0)).scores == {}


def test_a_missing_syncnet_is_named_and_nothing_is_measured_under_its_name(speaker, footage_of, tmp_path):
    recipe = load_recipe(
        "tiny", ["perception.sync=syncnet", f"perception.sync_path={tmp_path / 'none.model'}"]
    )
    assert "none.model" in missing_sync(recipe) and "xdub train syncnet" in missing_sync(recipe)
    result = Screen(recipe)(footage_of(speaker))
    assert result.failure is None and not any(name.startswith("offset") for name in result.scores)
    assert missing_sync(load_recipe("tiny")) == ""


def test_the_section_screen_changes_no_identity_until_a_value_differs():
    recipe = load_recipe("tiny")
    assert "screen" not in recipe.identity() and "screen" not in recipe.lasting()
    changed = load_recipe("tiny", ["screen.yaw=30"])
    assert changed.identity()["screen"] == {"yaw": 30.0}
    with pytest.raises(UserError, match="screen.shift=13"):
        load_recipe("tiny", ["screen.shift=13"])
