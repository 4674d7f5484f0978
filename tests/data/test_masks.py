"""Latent masks against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub.data.masks import to_latent_mask
from xdub.data.testing import PatchCodec
from xdub.errors import UserError


@settings(max_examples=30, deadline=None)
@given(
    k=st.integers(0, 4),
    h=st.integers(1, 4),
    w=st.integers(1, 4),
    share=st.floats(0, 0.05),
    seed=st.integers(0, 99),
)
def test_a_latent_is_set_when_any_of_its_pixels_is(k: int, h: int, w: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((4 * k + 1, 8 * h, 8 * w)) < share
    want = np.zeros((1, k + 1, h, w), np.float32)
    for f, y, x in np.argwhere(mask):
        want[0, 0 if f == 0 else (f - 1) // 4 + 1, y // 8, x // 8] = 1.0
    np.testing.assert_array_equal(to_latent_mask(mask, PatchCodec.geometry), want)


@pytest.mark.parametrize("shape", [(4, 8, 8), (5, 9, 8), (5, 8, 12)])
def test_sizes_that_do_not_fit_the_codec_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="has no latents"):
        to_latent_mask(np.zeros(shape, bool), PatchCodec.geometry)
