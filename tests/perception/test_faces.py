"""Face tracking: faces of any size are located, through gaps and cuts, and none is reported in empty pictures."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from xdub.errors import UserError
from xdub.perception import faces
from xdub.perception.faces import CutWatch, FaceTracker, bridge_gaps
from xdub.perception.landmarks import MESH_TO_68, eye_distance
from xdub.perception.mouth import mouth_opening
from xdub.perception.quiet import without_chatter


@pytest.fixture(scope="module")
def tracker():
    with FaceTracker() as tracker:
        yield tracker


def wall(height: int, width: int) -> np.ndarray:
    """Return a background without faces."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(60, 180, (height // 90, width // 90, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def put(background: np.ndarray, head: np.ndarray, x: int, y: int, size: int) -> np.ndarray:
    frame = background.copy()
    frame[y : y + size, x : x + size] = cv2.resize(head, (size, size), interpolation=cv2.INTER_AREA)
    return frame


def test_landmarks_are_close_to_the_rendered_truth_and_measure_the_lips(tracker, heads):
    for pair in heads:
        track = tracker.track(pair.full)
        assert track.detected.all() and not track.cuts.any() and (track.height, track.width) == (256, 256)
        unit = eye_distance(pair.full_landmarks).mean()
        off = np.linalg.norm(track.landmarks68 - pair.full_landmarks, axis=-1) / unit
        assert off[:, 36:48].mean() < 0.05 and off[:, 48:].mean() < 0.08
        assert np.corrcoef(mouth_opening(track.landmarks68), pair.clip.opening)[0, 1] > 0.9


def test_a_tight_crop_of_80_px_is_enough(tracker, heads):
    track = tracker.track(heads[0].clip.frames)
    assert track.detected.all()
    assert np.corrcoef(mouth_opening(track.landmarks68), heads[0].clip.opening)[0, 1] > 0.85


def test_a_small_face_in_a_tall_full_hd_picture_is_found_and_followed(tracker, heads):
    background = wall(1920, 1080)
    # The face is half of the head's picture.
    pair, size = heads[0], 240
    frames = (put(background, head, 600 + 4 * n, 1300, size) for n, head in enumerate(pair.full[:8]))
    track = tracker.track(frames)
    assert track.detected.all()
    expected = pair.full_landmarks[:8] * (size / 256) + (600, 1300)
    expected[..., 0] += 4 * np.arange(8)[:, None]
    assert np.abs(track.landmarks68 - expected)[:, 36:48].mean() < 4


def test_pictures_without_a_face_have_an_empty_track(tracker):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (240, 320, 3), dtype=np.uint8) for _ in range(2)]
    for frames in ([wall(540, 960)] * 3, noise):
        track = tracker.track(frames)
        assert not track.detected.any() and not track.has_face.any() and np.isnan(track.landmarks68).all()
    assert len(tracker.track([])) == 0


def test_short_gaps_are_interpolated_and_long_ones_are_not(tracker, heads):
    frames = heads[0].full.copy()
    blurred = cv2.GaussianBlur(frames[5], (0, 0), 40)
    frames[5:8], frames[12:20] = blurred, blurred
    track = tracker.track(frames)
    assert not track.cuts.any()
    assert not track.detected[5:8].any() and track.has_face[5:8].all()
    assert not track.has_face[12:20].any() and track.detected[20:].all()


def test_the_larger_of_two_faces_is_followed_when_the_other_comes_close(tracker, heads):
    background = wall(540, 960)
    frames = []
    for n in range(12):
        frame = put(background, heads[0].full[n], 330, 120, 300)
        frames.append(put(frame, heads[1].full[n], 720 - 20 * n if n < 5 else 640, 200, 180))
    track = tracker.track(frames)
    centre = track.landmarks68[:, 36:48].mean(axis=1)
    assert track.detected.all() and (np.abs(centre[:, 0] - 480) < 60).all()


def test_a_cut_starts_a_new_search(tracker, heads):
    dark, light = wall(400, 600) // 3, 255 - wall(400, 600) // 4
    shots = [put(dark, head, 20, 20, 256) for head in heads[0].full[:6]]
    shots += [put(light, head, 320, 120, 256) for head in heads[1].full[:6]]
    track = tracker.track(shots)
    assert np.flatnonzero(track.cuts).tolist() == [6] and track.detected.all()
    assert (track.landmarks68[:6, 30, 0] < 280).all() and (track.landmarks68[6:, 30, 0] > 320).all()


def test_equal_pictures_have_equal_points_and_the_mesh_is_kept_on_request(tracker, heads):
    first = tracker.track(heads[0].full[:4], keep_mesh=True)
    again = tracker.track(heads[0].full[:4])
    assert np.array_equal(first.landmarks68, again.landmarks68) and again.landmarks478 is None
    assert np.array_equal(first.landmarks478[:, MESH_TO_68, :2], first.landmarks68)


def test_a_drawn_face_is_detected(tracker):
    picture = np.full((256, 256, 3), (200, 220, 240), np.uint8)
    cv2.ellipse(picture, (128, 133), (70, 90), 0, 0, 360, (250, 220, 190), -1, cv2.LINE_AA)
    for x in (98, 158):
        cv2.ellipse(picture, (x, 123), (18, 12), 0, 0, 360, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(picture, (x, 123), 9, (60, 90, 140), -1, cv2.LINE_AA)
        cv2.circle(picture, (x, 123), 4, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.ellipse(picture, (x, 96), (20, 6), 0, 180, 360, (70, 40, 20), 4, cv2.LINE_AA)
    cv2.line(picture, (128, 128), (122, 156), (200, 160, 130), 3, cv2.LINE_AA)
    cv2.ellipse(picture, (128, 183), (24, 8), 0, 0, 360, (200, 80, 80), -1, cv2.LINE_AA)
    assert tracker.track([picture]).detected.all()


def test_interpolation_is_linear_and_stays_within_a_shot():
    points = np.arange(12, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    holes = points.copy()
    holes[2:4], holes[6:9] = np.nan, np.nan
    cuts = np.zeros(12, bool)
    assert np.allclose(bridge_gaps(holes, cuts), points)
    cuts[7] = True
    assert np.isnan(bridge_gaps(holes, cuts)[6:9]).all()
    assert np.isnan(bridge_gaps(holes, np.zeros(12, bool), longest=2)[6:9]).all()


def test_fades_and_motion_are_not_cuts():
    watch, picture = CutWatch(), wall(360, 640)
    fade = [(picture * a).astype(np.uint8) for a in np.linspace(1, 0, 25)]
    pan = [np.roll(picture, 12 * n, axis=1) for n in range(10)]
    assert not any(watch.is_cut(frame) for frame in fade)
    watch = CutWatch()
    assert not any(watch.is_cut(frame) for frame in pan)


def test_a_start_prints_no_routine_lines_and_keeps_others(capfd):
    with FaceTracker():
        pass
    assert capfd.readouterr().err == ""
    with without_chatter():
        os.write(2, b"W0000 00:00:17 graph.cc:1] routine\nsomething broke\n")
    assert capfd.readouterr().err == "something broke\n"


def test_missing_weights_are_a_user_error(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(UserError, match="face_landmarker.*cannot be fetched"):
        FaceTracker()
    assert faces.SHORT_GAP == 5
