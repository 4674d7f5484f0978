"""The crop carries no lip motion, and its paste is the inverse of its cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xdub.data import transforms
from xdub.errors import UserError


def face(
    num_frames: int = 12, eye: float = 60.0, position: tuple[float, float] = (200.0, 150.0)
) -> np.ndarray:
    """Return schematic points [F,68,2] with the proportions of an adult."""
    points = np.tile(np.asarray(position, np.float32), (num_frames, 68, 1))
    ring = np.linspace(0, np.pi, 17)
    points[:, :17] += np.stack([-1.1 * np.cos(ring), 1.85 * np.sin(ring)], 1) * eye
    for low, high, centre in ((36, 42, -0.5), (42, 48, 0.5)):
        points[:, low:high] += np.array([centre, 0.0]) * eye
        points[:, low] += np.array([-0.22, 0]) * eye
        points[:, low + 3] += np.array([0.22, 0]) * eye
    points[:, 17:27] += np.stack([np.linspace(-0.9, 0.9, 10), np.full(10, -0.42)], 1) * eye
    points[:, 27:36] += np.array([0, 0.76]) * eye
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    points[:, 48:68] += (np.stack([0.4 * np.cos(turn), 1.15 + 0.15 * np.sin(turn)], 1)) * eye
    return points.astype(np.float32)


def smooth_picture(height: int, width: int) -> np.ndarray:
    """Return a picture that survives resampling: waves of 20 px and more, another phase in each channel."""
    y, x = np.mgrid[:height, :width]
    channels = [np.sin(x / 5 + c) * np.cos(y / 7 - c) for c in range(3)]
    return np.rint(127.5 + 100 * np.stack(channels, -1)).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_boxes_do_not_depend_on_lips_or_jaw(seed: int) -> None:
    landmarks = face()
    moved = landmarks.copy()
    lips_and_jaw = [*range(17), *range(48, 68)]
    noise = np.random.default_rng(seed).normal(0, 30, (len(landmarks), len(lips_and_jaw), 2))
    moved[:, lips_and_jaw] += noise
    np.testing.assert_array_equal(transforms.crop_boxes(landmarks), transforms.crop_boxes(moved))


def test_crop_spans_brows_to_open_chin_and_the_mouth_is_a_third() -> None:
    landmarks = face()
    points = transforms.crop_points(landmarks, transforms.crop_boxes(landmarks), 100)[0]
    assert 0 < points[17:27, 1].min() < 10, "the brows are just inside the top"
    assert 75 < points[8, 1] < 90, "a closed chin leaves room for an open chin"
    assert 0.27 < np.ptp(points[48:68, 0]) / 100 < 0.33
    assert 1.2 < 100 / np.ptp(points[:17, 0]) < 1.3, "crop width in face widths"


def test_boxes_follow_the_face_and_smooth_its_jitter() -> None:
    jitter = np.random.default_rng(0).normal(0, 2, (100, 1, 2)).astype(np.float32)
    drift = np.linspace(0, 80, 100, dtype=np.float32)[:, None, None]
    still = transforms.crop_boxes(face(100) + drift)
    shaky = transforms.crop_boxes(face(100) + drift + jitter)
    assert np.abs(np.diff(shaky[:, :2], axis=0) - np.diff(still[:, :2], axis=0)).max() < 0.5
    assert np.abs(still[20:80, 0] - still[20:80].mean(0)[0] - (drift[20:80, 0, 0] - 40)).max() < 0.5


def test_missing_frames_are_interpolated_and_a_clip_without_a_face_is_refused() -> None:
    landmarks = face(20)
    gap = landmarks.copy()
    gap[5:9] = np.nan
    np.testing.assert_allclose(transforms.crop_boxes(gap), transforms.crop_boxes(landmarks), atol=1e-3)
    with pytest.raises(UserError, match="no face"):
        transforms.crop_boxes(np.full((3, 68, 2), np.nan, np.float32))


def test_scale_widens_the_box_and_keeps_its_centre() -> None:
    one, two = transforms.crop_boxes(face()), transforms.crop_boxes(face(), scale=2.0)
    np.testing.assert_allclose(two, one * [1, 1, 2], rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    cx=st.floats(70, 130),
    cy=st.floats(70, 130),
    side=st.floats(40, 120),
    size=st.sampled_from([40, 64, 96, 160]),
)
# The edge of this box is a whole number in double precision only.
@example(cx=70.0, cy=70.2, side=40.4, size=40)
def test_paste_undoes_crop_within_resampling(cx: float, cy: float, side: float, size: int) -> None:
    picture = smooth_picture(200, 200)
    box = np.array([cx, cy, side], np.float32)
    small = transforms.crop(picture[None], box[None], size)
    alpha = np.ones((200, 200), np.float32)
    back = transforms.paste(picture, small[0], box, alpha)
    inner = tuple(slice(int(c - side / 2) + 3, int(c + side / 2) - 3) for c in (cy, cx))
    error = np.abs(back[inner].astype(float) - picture[inner])
    # An average over `blur` px loses some contrast of the finest wave.
    blur = max(1.0, side / size)
    assert error.mean() < 4 * blur**2
    half_pixel = np.abs(np.diff(picture[inner].astype(float), axis=1)).mean() / 2
    assert error.mean() < half_pixel, "the error exceeds that of a shift by half a pixel"
    outside = np.ones((200, 200), bool)
    (left, top), (right, bottom) = (
        np.floor(box[:2] - box[2] / 2).astype(int),
        np.floor(box[:2] + box[2] / 2).astype(int),
    )
    # `paste` uses the box in single precision.
    outside[top : bottom + 1, left : right + 1] = False
    np.testing.assert_array_equal(back[outside], picture[outside])


def test_crop_points_land_on_the_same_pixels_as_the_crop() -> None:
    picture = np.zeros((300, 300), np.float32)
    picture[143:148, 120:125] = 1.0  # a dot centred at (122.5, 145.5)
    box = np.array([[150.3, 139.8, 110.0]], np.float32)
    for size in (50, 110, 230):
        small = transforms.crop(picture[None], box, size)[0]
        y, x = np.mgrid[:size, :size] + 0.5
        centroid = np.array([(x * small).sum(), (y * small).sum()]) / small.sum()
        point = np.array([[[122.5, 145.5]]], np.float32)
        cropped = transforms.crop_points(point, box, size)
        np.testing.assert_allclose(cropped[0, 0], centroid, atol=0.06 * size / 50)


def test_shrinking_averages_all_pixels() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 320, 320), np.uint8)
    small = transforms.crop(noise, np.array([[160, 160, 320]], np.float32), 40)[0]
    mean = noise[0].reshape(40, 8, 40, 8).mean((1, 3))
    assert np.abs(small - mean).max() <= 1.0


def test_crop_beyond_the_picture_repeats_its_edge() -> None:
    picture = np.full((1, 50, 50, 3), 77, np.uint8)
    assert (transforms.crop(picture, np.array([[0, 50, 80]], np.float32), 32) == 77).all()


def test_alpha_is_one_inside_zero_at_the_border_and_soft_between() -> None:
    mask = np.zeros((80, 80), bool)
    mask[20:, 10:70] = True  # reaches the lower border of the crop
    box = np.array([150.4, 120.7, 160.0], np.float32)
    alpha = transforms.full_alpha(mask, box, (300, 300), feather=6.0)
    assert alpha[110, 150] > 0.99
    bottom = int(box[1] + box[2] / 2)
    assert alpha[bottom - 1 :].max() < 0.05 and alpha[bottom + 1 :].max() == 0
    assert np.abs(np.diff(alpha, axis=0)).max() < 0.1
    hard = transforms.full_alpha(mask, box, (300, 300), feather=0.0)
    assert abs(hard.sum() - mask.sum() * 4) < 0.03 * hard.sum()
