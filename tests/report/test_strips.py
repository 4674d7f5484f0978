"""Film strips: the frames that are picked, their order, and mouths enlarged."""

from __future__ import annotations

import cv2
import numpy as np

from xdub.evaluate.testing import drawn_faces, drawn_landmarks
from xdub.report.strips import mouth_zoom, pick_frames, png, strip


def test_frames_are_picked_in_order_and_prefer_open_and_closed_mouths() -> None:
    opening = np.full(40, 0.1)
    opening[[7, 33]] = [0.5, 0.0]
    picked = pick_frames(opening, 4)
    assert list(picked) == sorted(picked) and 7 in picked and 33 in picked


def test_strips_keep_the_frames_pixels_in_order() -> None:
    frames = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (10, 90, 200)])
    image = strip(frames, 8, gap=2)
    assert image.shape == (8, 28, 4) and [int(image[4, x, 0]) for x in (4, 14, 24)] == [10, 90, 200]
    assert image[4, 9, 3] == 0, "the gap is transparent, so it suits dark pages"
    assert np.array_equal(cv2.imdecode(np.frombuffer(png(frames[0]), np.uint8), 1), frames[0])


def test_the_mouth_zoom_is_centred_on_the_mouth_and_survives_missing_landmarks() -> None:
    points = drawn_landmarks(2)
    points[1] = np.nan
    zoom = mouth_zoom(drawn_faces(np.array([0.1, 0.1])), points)
    assert zoom.shape == (2, 64, 96, 3) and tuple(zoom[0, 30, 48]) == (150, 50, 60)
