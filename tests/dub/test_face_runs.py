"""Runs of frames that are dubbed: unbroken stretches with one face."""

from __future__ import annotations

import numpy as np

from xdub.config import VideoConfig
from xdub.dub.face_runs import find_runs
from xdub.dub.segments import mirror_index
from xdub.perception.faces import FaceTrack

VIDEO = VideoConfig(size=64, clip_frames=5)


def _face(x: float, y: float, size: float = 40.0) -> np.ndarray:
    """Return 68 points around (x, y), with eyes `size` px apart."""
    points = np.random.default_rng(0).uniform(-0.8, 0.8, (68, 2))
    points[36:42], points[42:48] = (-0.5, 0), (0.5, 0)
    points[27:36] = (0, 0.7)
    points[48:68] = np.random.default_rng(1).uniform(-0.3, 0.3, (20, 2)) + (0, 1.1)
    return (points * size + (x, y)).astype(np.float32)


def _track(landmarks: np.ndarray, cuts: tuple[int, ...] = ()) -> FaceTrack:
    count = len(landmarks)
    marks = np.zeros(count, bool)
    marks[list(cuts)] = True
    has_face = np.isfinite(landmarks[:, 0, 0])
    mesh = np.full((count, 478, 3), np.nan, np.float32)
    return FaceTrack(
        landmarks68=landmarks,
        landmarks478=mesh,
        detected=has_face,
        faces=has_face.astype(int),
        cuts=marks,
        height=400,
        width=400,
    )


def _moving(count: int) -> np.ndarray:
    return np.stack([_face(150 + n, 150) for n in range(count)])


def _spans(track: FaceTrack, index: np.ndarray) -> list[tuple[int, int]]:
    return [(run.start, run.start + len(run)) for run in find_runs(track, index, VIDEO)]


def test_a_face_in_all_frames_is_one_run_in_any_order_of_play() -> None:
    track = _track(_moving(10))
    assert _spans(track, np.arange(10)) == [(0, 10)]
    assert _spans(track, mirror_index(10, 35)) == [(0, 35)]


def test_frames_without_a_face_are_in_no_run() -> None:
    landmarks = _moving(12)
    landmarks[[0, 5, 6, 11]] = np.nan
    assert _spans(_track(landmarks), np.arange(12)) == [(1, 5), (7, 11)]
    landmarks[:] = np.nan
    assert _spans(_track(landmarks), np.arange(12)) == []


def test_a_cut_begins_a_new_run_forwards_and_backwards() -> None:
    track = _track(_moving(10), cuts=(4,))
    assert _spans(track, mirror_index(10, 18)) == [(0, 4), (4, 15), (15, 18)]


def test_a_face_that_jumps_or_grows_is_another_face() -> None:
    landmarks = _moving(9)
    landmarks[3:] += 120
    landmarks[6:] = np.stack([_face(280, 280, 80)] * 3)
    assert _spans(_track(landmarks), np.arange(9)) == [(0, 3), (3, 6), (6, 9)]


def test_masks_are_computed_for_the_requested_frames_and_do_not_depend_on_the_lips() -> None:
    landmarks = _moving(20)
    run = find_runs(_track(landmarks), np.arange(20), VIDEO)[0]
    moved = landmarks.copy()
    moved[:, 48:68] += np.float32([0, 15])
    moved[:, :17] += np.float32([0, 15])
    other = find_runs(_track(moved), np.arange(20), VIDEO)[0]
    index = np.array([7, 8, 9, 8])
    face, lips = run.masks(index, 48)
    np.testing.assert_array_equal(face, other.masks(index, 48)[0])
    np.testing.assert_array_equal(run.boxes, other.boxes)
    assert (lips != other.masks(index, 48)[1]).any()
    assert face.shape == (4, 48, 48) and face.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(face[1], face[3])
