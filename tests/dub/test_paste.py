"""Pasting changes only pixels inside the mask, and leaves no trace of the old lips and no seam."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdub.data.transforms import crop
from xdub.dub.feather import blur, feather_inside, keep_away
from xdub.dub.paste import make_patches, paste_patch

SIZE = 48


def _picture(seed: int, height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (1, height, width, 3)).astype(np.float32)
    coarse = blur(noise, 6)
    return np.clip(128 + 8 * (coarse - coarse.mean()) + 0.1 * (noise - 128), 0, 255)[0].astype(np.uint8)


def _scene(seed: int = 0, side: float = 101.3, height: int = 160, width: int = 171):
    full = _picture(seed, height, width)
    box = np.array([width / 2 + 0.3, height / 2 - 2.7, side], np.float32)
    source = crop(full[None], box[None], SIZE)
    mask = np.zeros((1, SIZE, SIZE), bool)
    mask[:, 16:44, 8:40] = True
    lips = np.zeros_like(mask)
    lips[:, 30:36, 18:30] = True
    return full, box, source, blur(source, 0.8), mask, lips


@given(st.integers(0, 5), st.floats(20, 300), st.floats(0.5, 4))
def test_pasting_a_patch_without_a_mask_keeps_the_picture(seed: int, side: float, feather: float) -> None:
    full, box, _, rendered, mask, lips = _scene(seed, side)
    nothing = np.zeros_like(lips)
    patch = make_patches(rendered.copy(), rendered, mask, nothing, feather)[0]
    np.testing.assert_array_equal(paste_patch(full, patch, box), full)


@given(st.integers(0, 5), st.floats(15, 400), st.floats(0.5, 4))
def test_pixels_outside_the_mask_are_returned_bit_for_bit(seed: int, side: float, feather: float) -> None:
    full, box, source, rendered, mask, lips = _scene(seed, side)
    generated = np.where(mask[..., None], 255 - source.astype(np.float32), rendered)
    out = paste_patch(full, make_patches(generated, rendered, mask, lips, feather)[0], box)
    # The outline of the mask in the picture is one crop pixel wider, because of interpolation.
    step, corner = box[2] / SIZE, box[:2] - box[2] / 2
    y, x = np.meshgrid(np.arange(full.shape[0]) + 0.5, np.arange(full.shape[1]) + 0.5, indexing="ij")
    u, v = (x - corner[0]) / step, (y - corner[1]) / step
    outside = (u < 7) | (u > 41) | (v < 15) | (v > 45)
    np.testing.assert_array_equal(out[outside], full[outside])
    assert (out != full).any() or side < 20


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_drift_of_colour_leaves_no_visible_patch(everywhere: bool) -> None:
    full, box, _, rendered, mask, lips = _scene()
    drift = np.float32([14, -9, 6])
    generated = rendered + (drift if everywhere else np.where(mask[..., None], drift, 0))
    out = paste_patch(full, make_patches(generated, rendered, mask, np.zeros_like(lips), 2)[0], box)
    difference = blur(np.abs(out.astype(np.float32) - full)[None], 4)[0]
    assert difference.max() <= 7


def test_the_models_grain_stays_out_of_skin_that_should_not_change() -> None:
    full, box, _, rendered, mask, lips = _scene()
    grain = np.random.default_rng(1).normal(0, 8, rendered.shape).astype(np.float32)
    generated = rendered + grain
    generated[:, 30:36, 18:30] = 20
    out = paste_patch(full, make_patches(generated, rendered, mask, lips, 2)[0], box)
    cheek = (slice(60, 70), slice(55, 110))
    assert np.abs(out[cheek].astype(int) - full[cheek]).mean() < 1
    assert np.abs(out[92:98, 78:94].astype(int) - 20).mean() < 25


def test_new_lips_appear_and_old_ones_leave_no_trace() -> None:
    full, box, _, _, mask, lips = _scene()
    # A shut mouth is a fine dark line, which the codec only blurs.
    full[94:98, 73:99] = 0
    rendered = blur(crop(full[None], box[None], SIZE), 1.5)
    generated = rendered.copy()
    generated[:, 28:38, 16:32] = (190, 120, 110)  # closed lips of one colour
    out = paste_patch(full, make_patches(generated, rendered, mask, lips, 2)[0], box)
    mouth = out[92:100, 78:94].astype(float)
    assert np.abs(mouth - (190, 120, 110)).mean() < 8
    assert mouth.std(axis=(0, 1)).max() < 8  # the line is gone


@pytest.mark.parametrize("sigma", [0.5, 2.0, 5.0])
def test_a_feather_stays_on_its_side_of_the_mask(sigma: float) -> None:
    mask = np.zeros((1, 40, 40), bool)
    mask[0, 10:, 5:30] = True  # reaches the lower border
    inside, away = feather_inside(mask, sigma), keep_away(mask, sigma)
    assert (inside[~mask] == 0).all() and (away[mask] == 0).all()
    assert inside.max() <= 1 and away.max() <= 1
    if sigma < 5:
        assert inside[0, 25, 17] == 1 and inside[0, 39, 17] == 1  # no ramp at the picture's border
