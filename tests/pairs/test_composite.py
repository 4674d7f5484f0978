"""V' differs from V in the face only, and both get the same light."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xdub.data.testing import make_clip
from xdub.pairs.composite import blend_weight, composite
from xdub.pairs.relight import draw_light, is_uniformly_lit, relight
from xdub.seeding import rng


@given(st.integers(0, 50), st.floats(0, 6))
def test_pixels_outside_of_the_face_and_on_occluders_do_not_change(seed: int, sigma: float) -> None:
    clip = make_clip(seed, num_frames=3)
    generated = 255 - clip.frames
    out = composite(clip.frames, generated, clip.face_mask, clip.occluder_mask, sigma)
    kept = ~clip.face_mask | clip.occluder_mask
    np.testing.assert_array_equal(out[kept], clip.frames[kept])


def test_the_inner_face_is_the_generated_picture() -> None:
    mask = np.zeros((1, 40, 40), bool)
    mask[:, 5:35, 5:35] = True
    original, generated = np.full((1, 40, 40, 3), 50, np.uint8), np.full((1, 40, 40, 3), 200.0, np.float32)
    out = composite(original, generated, mask, np.zeros_like(mask), 2.0)
    assert (out[0, 15:25, 15:25] == 200).all()
    rim = out[0, 20, 4:14, 0].astype(int)
    # The weight rises over the rim without an edge.
    assert (np.diff(rim) >= 0).all() and np.diff(rim).max() < 60


def test_a_composite_of_a_clip_with_itself_is_the_clip() -> None:
    clip = make_clip(1)
    np.testing.assert_array_equal(
        composite(clip.frames, clip.frames, clip.face_mask, clip.occluder_mask, 2.0), clip.frames
    )


def test_the_weight_falls_towards_an_occluder_from_its_own_side_only() -> None:
    face, hand = np.ones((1, 40, 40), bool), np.zeros((1, 40, 40), bool)
    hand[:, :, :10] = True
    weight = blend_weight(face, hand, 2.0)
    assert (weight[:, :, :10] == 0).all() and (weight[:, :, 20:] == 1).all()


@given(st.integers(0, 200))
def test_equal_pixels_stay_equal_in_new_light(seed: int) -> None:
    clip, light = make_clip(seed, num_frames=4), draw_light(rng("light", seed))
    other = composite(clip.frames, 255 - clip.frames, clip.face_mask, clip.occluder_mask, 1.0)
    same = (clip.frames == other).all(-1)
    one, two = relight(clip.frames, light), relight(other, light)
    np.testing.assert_array_equal(one[same], two[same])
    np.testing.assert_array_equal(one, relight(clip.frames, light))


def test_light_changes_the_picture_but_leaves_it_readable() -> None:
    frames = make_clip(2, num_frames=8).frames
    for seed in range(20):
        lit = relight(frames, draw_light(rng(seed)))
        assert np.corrcoef(lit.ravel(), frames.ravel())[0, 1] > 0.75
        assert (lit == 255).mean() < 0.35 and (lit == 0).mean() < 0.2
    assert np.abs(lit.astype(int) - frames).mean() > 3


def test_only_even_and_steady_light_counts_as_uniform() -> None:
    flat = np.full((9, 40, 40, 3), 120, np.uint8)
    assert is_uniformly_lit(flat)
    ramp = np.tile(np.linspace(40, 220, 40).astype(np.uint8)[None, None, :, None], (9, 40, 1, 3))
    assert not is_uniformly_lit(ramp)
    flicker = flat.copy()
    flicker[::2] //= 2
    assert not is_uniformly_lit(flicker)
    assert not is_uniformly_lit(flat // 20)
