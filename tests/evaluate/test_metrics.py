"""Every metric agrees with a formula or an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xdub.evaluate.metrics import (
    leak_corr,
    lip_box,
    mean_psnr,
    opening_corr,
    outside,
    pearson,
    psnr,
    rest_opening,
    silence_opening,
)
from xdub.seeding import rng

seeds = st.integers(0, 2**32)


def series(seed: int, n: int = 60) -> np.ndarray:
    """Return a smooth random opening [n]."""
    return np.convolve(rng("series", seed).random(n + 6), np.ones(7) / 7, mode="valid")


@given(seeds, st.floats(0.01, 60))
@settings(max_examples=25, deadline=None)
def test_psnr_of_noise_agrees_with_its_formula_frame_by_frame(seed: int, sigma: float) -> None:
    g = rng("psnr", seed)
    a = g.integers(0, 256, (3, 8, 9, 3), dtype=np.uint8)
    b = np.clip(a + g.normal(0, sigma, a.shape), 0, 255).astype(np.uint8)
    mse = np.array([np.mean((x.astype(float) - y) ** 2) for x, y in zip(a, b, strict=True)])
    expected = 10 * np.log10(65025 / np.maximum(mse, 1e-12))
    assert np.allclose(psnr(a, b), np.minimum(expected, 100), atol=1e-4)


def test_psnr_in_a_region_ignores_the_rest_and_an_empty_region_counts_for_nothing() -> None:
    a = np.zeros((2, 4, 4, 3), np.uint8)
    b = a.copy()
    b[:, 0, 0] = 255
    region = np.ones((2, 4, 4), bool)
    region[:, 0, 0] = False
    region[1] = False
    values = psnr(a, b, region)
    assert values[0] == 100.0 and np.isnan(values[1])
    assert mean_psnr([values, np.array([50.0])]) == 75.0


def test_psnr_refuses_videos_of_different_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4, 4, 3\)"):
        psnr(np.zeros((1, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8))


def test_lip_box_holds_the_mouths_of_all_tracks_and_is_empty_without_a_face() -> None:
    track = np.full((2, 68, 2), 5.0, np.float32)
    track[:, 48:68] = [[10, 12]]
    other = track.copy()
    other[:, 57] = [10, 20]
    other[1] = np.nan
    box = lip_box([track, other], 30, 30)
    assert box[0, 12, 10] and box[0, 20, 10] and not box[0, 5, 5] and not box[1].any()


@given(st.integers(0, 6))
@settings(deadline=None, max_examples=7)
def test_outside_keeps_its_distance_from_the_region(grow: int) -> None:
    region = np.zeros((1, 31, 31), bool)
    region[0, 15, 15] = True
    y, x = np.nonzero(~outside(region, grow)[0])
    assert np.hypot(y - 15, x - 15).max() <= grow + 1e-6 and (np.abs(x - 15).max() == grow)


@given(seeds, st.floats(-0.9, 0.9))
@settings(max_examples=25, deadline=None)
def test_pearson_agrees_with_scipy_and_skips_frames_without_a_reading(seed: int, mix: float) -> None:
    a = series(seed)
    b = mix * a + series(seed + 1)
    holes = b.copy()
    holes[::7] = np.nan
    keep = np.isfinite(holes)
    assert pearson(a, b) == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-9)
    assert pearson(a, holes) == pytest.approx(stats.pearsonr(a[keep], b[keep]).statistic, abs=1e-9)


def test_a_constant_series_has_no_correlation_rather_than_zero() -> None:
    assert np.isnan(pearson(np.ones(20), series(1, 20)))


def test_opening_corr_is_per_clip_so_that_different_faces_cannot_fake_it() -> None:
    truth = [series(i) * 0.01 + i for i in range(6)]
    read = [series(100 + i) * 0.01 + i for i in range(6)]  # each face's mean, and no speech
    result = opening_corr(read, truth)
    assert result.pooled > 0.99 and abs(result.mean) < 0.5
    assert opening_corr(truth, truth).mean == pytest.approx(1)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_a_perfect_dub_leaks_nothing_even_when_old_and_new_speech_correlate(seed: int) -> None:
    new = [series(seed + i) for i in range(5)]
    old = [0.6 * n + 0.3 * series(seed + 50 + i) for i, n in enumerate(new)]
    leak = leak_corr(new, old, new)
    assert abs(leak.unique) < 1e-6 and leak.raw > 0.5 and leak.raw == pytest.approx(leak.chance)


@given(seeds, st.floats(0.05, 1.0))
@settings(max_examples=25, deadline=None)
def test_the_leak_grows_with_the_old_speech_and_agrees_with_its_formula(seed: int, share: float) -> None:
    new, old = [series(seed)], [series(seed + 7)]
    read = [new[0] + share * old[0]]
    leak, more = leak_corr(read, old, new), leak_corr([new[0] + 2 * share * old[0]], old, new)
    assert 0 < leak.unique < more.unique
    r_ro, r_rn = (np.corrcoef(read[0], other[0])[0, 1] for other in (old, new))
    r_on = np.corrcoef(old[0], new[0])[0, 1]
    assert leak.unique == pytest.approx((r_ro - r_rn * r_on) / np.sqrt(1 - r_on**2), abs=1e-6)
    # Without the part that the new speech explains, the old speech alone remains.
    assert leak.partial == pytest.approx(1, abs=1e-6)


def test_a_copy_of_the_source_is_a_full_leak() -> None:
    new, old = [series(3)], [series(4)]
    assert leak_corr(old, old, new).raw == pytest.approx(1)


def test_silence_is_measured_against_the_readout_of_closed_mouths() -> None:
    truth = [np.linspace(0, 0.2, 50)]
    read = [truth[0] + 0.03]  # the readout's own offset must not count as an open mouth
    rest = rest_opening(read, truth)
    assert rest == pytest.approx(0.03 + 0.0082, abs=2e-3)
    assert silence_opening([np.full(20, rest), np.full(20, rest)], rest) == pytest.approx(0)
    assert silence_opening([np.full(20, rest + 0.1)], rest) == pytest.approx(0.1)
