"""Crops of the published editors against the formula of their release, landmark by landmark."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import savgol_filter

from xdub.config import load_recipe
from xdub.data.face_boxes import face_boxes
from xdub.data.landmark_boxes import boxes_from_template, landmark_boxes, running_mean
from xdub.errors import UserError
from xdub.perception.faces import FaceTrack

WIDTH, HEIGHT = 640, 480


def slow_mean(values: np.ndarray, window: int) -> np.ndarray:
    half = window // 2
    return np.stack([values[max(0, n - half) : n + half + 1].mean(0) for n in range(len(values))])


def slow_boxes(landmarks: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the case and the boxes (x0, y0, x1, y1) of landmarks [F, N, 2], before they are rounded to pixels."""
    smooth = landmarks.astype(np.float64)
    for window in (15, 19, 23, 27, 31):
        smooth = savgol_filter(smooth, window, 2, axis=0, mode="mirror")
    smooth = slow_mean(slow_mean(smooth, 17), 7)
    boxes = []
    for points in smooth:
        low, high = points.clip(0, (WIDTH, HEIGHT)).min(0), points.clip(0, (WIDTH, HEIGHT)).max(0)
        side = min(1.45 * (high - low).max(), WIDTH, HEIGHT)
        corner = (low + high) / 2 - side / 2
        corner = np.clip(corner, 0, (WIDTH - side, HEIGHT - side))
        boxes.append([*corner, *(corner + side)])
    boxes = slow_mean(np.array(boxes), 7)
    union = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    room = 0.16 * np.tile(union[2:] - union[:2], 2)
    sides = boxes[:, 2] - boxes[:, 0]
    edge = lambda values: savgol_filter(np.pad(values, ((12, 12), (0, 0)), "edge"), 25, 2, axis=0)[12:-12]  # noqa: E731
    if (np.abs(boxes - union) <= room).all():
        mean = slow_mean(boxes, 5)
        low, high = mean[:, :2].min(0), mean[:, 2:].max(0)
        side = min((high - low).max(), WIDTH, HEIGHT)
        corner = np.clip((low + high) / 2 - side / 2, 0, (WIDTH - side, HEIGHT - side))
        return 1, np.tile([*corner, *(corner + side)], (len(boxes), 1))
    if (np.abs(sides - sides.mean()) <= 0.1 * sides.mean()).all():
        mean = slow_mean(boxes, 5)
        side = min((mean[:, 2] - mean[:, 0]).max(), WIDTH, HEIGHT)
        centre = edge(slow_mean((mean[:, :2] + mean[:, 2:]) / 2, 15))
        centre = slow_mean(slow_mean(slow_mean(centre, 11), 7), 3)
        corner = np.clip(centre - side / 2, 0, (WIDTH - side, HEIGHT - side))
        return 2, np.concatenate([corner, corner + side], 1)
    mean = edge(slow_mean(slow_mean(boxes, 5), 11))
    mean = slow_mean(slow_mean(mean, 7), 3)
    side = (mean[:, 2:] - mean[:, :2]).min(1)[:, None]
    side = slow_mean(edge(slow_mean(side, 11)), 7)
    corner = mean[:, :2].clip(0)
    side = np.minimum(side, ((WIDTH, HEIGHT) - corner).min(1)[:, None])
    final = slow_mean(slow_mean(slow_mean(np.concatenate([corner, corner + side], 1), 11), 7), 3)
    return 3, final


def face(count: int, *, shift: float = 0.0, growth: float = 0.0, x: float = 260.0) -> np.ndarray:
    """Return landmarks [F, 30, 2] of a face that trembles, drifts by ``shift`` px and grows by a factor 1 + growth."""
    rng = np.random.default_rng(0)
    shape = rng.uniform(-1, 1, (30, 2)) * (60, 80)
    shape[:4] = (-61, 0), (61, 0), (0, -81), (0, 81)
    time = np.linspace(0, 1, count)[:, None, None]
    return shape * (1 + growth * time) + (x, 240) + shift * time * (1, 0.2) + rng.normal(0, 1, (count, 1, 2))


def bounds(landmarks: np.ndarray) -> np.ndarray:
    return np.concatenate([landmarks.min(1), landmarks.max(1)], 1)


@pytest.mark.parametrize(
    ("case", "motion"),
    [
        (1, {}),
        (1, {"x": 40.0}),
        (2, {"shift": 150.0}),
        (2, {"shift": -230.0}),
        (3, {"growth": 0.6}),
        (3, {"growth": -0.5, "shift": 200.0}),
    ],
)
def test_boxes_follow_the_formula_of_the_release_in_each_of_its_cases(case, motion):
    landmarks = face(90, **motion)
    expected_case, expected = slow_boxes(landmarks)
    assert expected_case == case
    boxes = landmark_boxes(bounds(landmarks), WIDTH, HEIGHT)
    assert boxes.shape == (90, 3) and boxes.dtype == np.float32
    side = expected[:, 2] - expected[:, 0]
    centre = (expected[:, :2] + expected[:, 2:]) / 2
    np.testing.assert_allclose(boxes, np.column_stack([centre, side]), atol=1e-3)
    corner = boxes[:, :2] - boxes[:, 2:] / 2
    assert (corner > -1e-3).all() and (corner + boxes[:, 2:] < (WIDTH + 1e-3, HEIGHT + 1e-3)).all()


@pytest.mark.parametrize("count", [1, 2, 4, 9, 30])
def test_short_videos_and_frames_without_a_face_have_boxes_too(count):
    values = bounds(face(count))
    values[count // 2 : count // 2 + 1] = np.nan if count > 1 else values[:1]
    boxes = landmark_boxes(values, WIDTH, HEIGHT)
    assert np.isfinite(boxes).all()
    assert np.ptp(boxes[:, 2]) < 20 and 220 < boxes[:, 2].mean() < 260
    with pytest.raises(UserError, match="no face in any frame"):
        landmark_boxes(np.full((count, 4), np.nan), WIDTH, HEIGHT)


def test_a_face_larger_than_the_picture_gets_the_largest_square_inside():
    boxes = landmark_boxes(np.tile([100.0, 20.0, 500.0, 470.0], (9, 1)), WIDTH, HEIGHT)
    np.testing.assert_allclose(boxes, np.tile([300.0, 240.0, 480.0], (9, 1)))


def test_running_means_have_fewer_neighbours_at_the_ends():
    values = np.random.default_rng(0).normal(size=(20, 3))
    for window in (3, 7, 17, 25):
        np.testing.assert_allclose(running_mean(values, window), slow_mean(values, window), atol=1e-12)


def test_a_recipe_chooses_the_box_of_its_crops():
    points = np.random.default_rng(0).uniform(200, 300, (12, 68, 2)).astype(np.float32)
    marks = np.zeros(12, bool)
    track = FaceTrack(
        landmarks68=points,
        landmarks478=None,
        detected=~marks,
        faces=np.ones(12, int),
        cuts=marks,
        height=HEIGHT,
        width=WIDTH,
        bounds=np.tile(np.float32([180, 150, 320, 350]), (12, 1)),
    )
    template = load_recipe("tiny").video
    wide = load_recipe("tiny", ["video.crop=landmark_box", "video.crop_scale=1.0"]).video
    assert face_boxes(track, slice(0, 12), template).shape == (12, 3)
    np.testing.assert_allclose(face_boxes(track, slice(3, 9), wide), np.tile([250, 250, 290], (6, 1)))


def test_boxes_of_rendered_heads_lie_where_the_releases_boxes_lie_on_average() -> None:
    template = np.array([[300.0, 240.0, 100.0], [310.0, 40.0, 100.0]], np.float32)
    boxes = boxes_from_template(template, WIDTH, HEIGHT, scale=1.1)
    np.testing.assert_allclose(boxes[0], (300, 240 - 14.8, 160.16), rtol=1e-5)
    # A box stays inside the picture.
    np.testing.assert_allclose(boxes[1], (310, 80.08, 160.16), rtol=1e-5)
