"""Colours of generated crops that are matched to their source."""

from __future__ import annotations

import numpy as np
import pytest

from xdub.dub.colour import match_colours


@pytest.fixture()
def source() -> np.ndarray:
    ramp = np.linspace(60, 180, 24)
    picture = np.stack(
        [ramp[None] + 0 * ramp[:, None], ramp[:, None] + 0 * ramp[None], 0.5 * (ramp + ramp[:, None])]
    )
    return np.repeat(np.rint(picture).astype(np.uint8).transpose(1, 2, 0)[None], 2, 0)


def shifted(source: np.ndarray) -> np.ndarray:
    """Return the source with weaker contrast, a red cast, and a mouth that the source does not have."""
    out = 0.96 * source.astype(np.float32) + (9, 2, -3)
    out[:, 8:14, 8:14] = 250
    return out.astype(np.float32)


def test_pixels_that_look_alike_decide_the_shift_of_the_whole_frame(source):
    generated = shifted(source)
    matched = match_colours(generated, source, "masked_rgb")
    expected = source.astype(np.float32)
    outside = np.ones((24, 24), bool)
    outside[8:14, 8:14] = False
    assert np.abs(matched - expected)[:, outside].max() < 0.2
    # The same shift acts on the mouth, which itself has no say in it.
    mouth = np.clip((250 - np.array((9, 2, -3))) / 0.96, 0, 255)
    np.testing.assert_allclose(matched[0, 10, 10], mouth, atol=1.0)


def test_a_frame_that_nowhere_looks_like_its_source_keeps_its_colours(source):
    generated = (255 - source).astype(np.float32)
    generated[:] = 255
    far = np.zeros_like(source)
    np.testing.assert_allclose(match_colours(generated, far, "masked_rgb"), generated)


def test_lab_gives_the_whole_frame_the_means_and_deviations_of_its_source(source):
    import cv2

    generated = 0.9 * source.astype(np.float32) + (12, 4, -6)
    matched = match_colours(generated.astype(np.float32), source, "lab")
    own, target = (
        cv2.cvtColor((x[0] / 255).astype(np.float32), cv2.COLOR_RGB2Lab) for x in (matched, source)
    )
    np.testing.assert_allclose(own.mean((0, 1)), target.mean((0, 1)), atol=0.15)
    np.testing.assert_allclose(own.std((0, 1)), target.std((0, 1)), atol=0.15)


def test_without_a_match_the_frames_are_the_same_object(source):
    generated = shifted(source)
    assert match_colours(generated, source, "none") is generated
