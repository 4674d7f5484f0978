"""Mouth opening and distance on shapes with known results."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdub.perception.mouth import ARCFACE_112, mouth_landmark_distance, mouth_opening, to_template, umeyama


def face(gap: float = 0.0, down: float = 0.0) -> np.ndarray:
    """Return 68 points on the ArcFace template, with inner lips ``gap`` px apart and the mouth ``down`` px lower."""
    points = np.zeros((68, 2))
    for corners, eye in (((36, 39), ARCFACE_112[0]), ((42, 45), ARCFACE_112[1])):
        points[corners[0]], points[corners[1]] = eye - (5, 0), eye + (5, 0)
    points[30] = ARCFACE_112[2]
    points[48:68] = np.linspace(ARCFACE_112[3], ARCFACE_112[4], 20) + (0, down)
    points[48], points[54] = ARCFACE_112[3] + (0, down), ARCFACE_112[4] + (0, down)
    for up, low in ((61, 67), (62, 66), (63, 65)):
        points[low] = points[up] + (0, gap)
    return points


def test_opening_is_the_gap_over_the_eye_distance():
    eyes = np.linalg.norm(ARCFACE_112[1] - ARCFACE_112[0])
    assert mouth_opening(face(gap=7.0)) == pytest.approx(7.0 / eyes, rel=1e-5)
    assert mouth_opening(face()) == 0
    assert mouth_opening(np.stack([face(3), face(6)])).shape == (2,)
    assert np.isnan(mouth_opening(np.full((68, 2), np.nan)))


@given(st.floats(-3, 3), st.floats(0.1, 20), st.floats(-500, 500), st.floats(0, 12))
def test_opening_and_distance_do_not_depend_on_the_camera(angle, scale, shift, gap):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = face(gap) @ turn.T + shift
    assert mouth_opening(moved) == pytest.approx(mouth_opening(face(gap)), abs=1e-4)
    assert mouth_landmark_distance(moved, face(gap)) == pytest.approx(0, abs=1e-5)
    assert np.allclose(to_template(moved), to_template(face(gap)), atol=1e-5)


def test_the_corners_absorb_part_of_a_jaw_motion_but_eyes_and_nose_do_not():
    lowered = face(down=3.0)
    assert mouth_landmark_distance(face(), lowered, "eyes_nose") == pytest.approx(3.0, abs=1e-6)
    assert 0.8 < mouth_landmark_distance(face(), lowered, "five") < 1.3
    assert mouth_landmark_distance(face(), face()) == pytest.approx(0, abs=1e-9)


@given(st.integers(0, 10_000))
def test_the_closed_form_is_the_least_squares_similarity(seed):
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(2, 5, 2))
    matrix, shift = umeyama(source, target)
    # Solve the same problem by linear regression over (a, b, x, y).
    rows = np.concatenate(
        [np.stack([source[:, 0], -source[:, 1], np.ones(5), np.zeros(5)], 1)]
        + [np.stack([source[:, 1], source[:, 0], np.zeros(5), np.ones(5)], 1)]
    )
    a, b, x, y = np.linalg.lstsq(rows, target.T.ravel(), rcond=None)[0]
    assert np.allclose(matrix, [[a, -b], [b, a]]) and np.allclose(shift, [x, y])
