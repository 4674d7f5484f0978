"""Weights of guidance against the formula of the release, and the border of the sampled latents."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xdub.config import GuidanceConfig
from xdub.diffusion import Border, guidance_weights, guided_velocity, rounded_time, sample

TEACHER = GuidanceConfig(reference=2.0, audio=6.0, audio_floor=0.5)
unit = st.floats(0, 1)


def reference_by_cases(t: float, scale: float) -> float:
    """The schedule of X-Dub's release: transitions of width 0.1 around 0.8 and 0.4."""
    blend = lambda start: (1 - math.cos(math.pi * (start - t) / 0.1)) / 2  # noqa: E731
    if t >= 0.85:
        return scale
    if t >= 0.75:
        return scale * (1 - blend(0.85)) + 0.6 * scale * blend(0.85)
    if t >= 0.45:
        return 0.6 * scale
    if t >= 0.35:
        return 0.6 * scale * (1 - blend(0.45)) + 0.3 * scale * blend(0.45)
    return 0.3 * scale


@given(unit)
def test_the_weights_are_those_of_the_published_schedules(t):
    reference, audio = guidance_weights(GuidanceConfig(), t)
    assert reference == pytest.approx(reference_by_cases(t, 2.5), abs=1e-9)
    assert audio == pytest.approx(10 * t**1.5)
    reference, audio = guidance_weights(TEACHER, t)
    assert reference == pytest.approx(reference_by_cases(t, 2.0), abs=1e-9)
    assert audio == pytest.approx(6 * max(t**1.5, 0.5))


def test_equal_levels_and_no_power_make_the_weights_constant():
    config = GuidanceConfig(reference=3, reference_levels=(1, 1, 1), audio=4, audio_power=0)
    assert {guidance_weights(config, t / 10) for t in range(11)} == {(3.0, 4.0)}
    step = GuidanceConfig(reference=1, reference_levels=(0, 0, 1), reference_edges=(0, 0, 0.5, 0.5))
    assert [guidance_weights(step, t)[0] for t in (0.49, 0.5)] == [0.0, 1.0]


def test_the_combination_starts_from_the_branch_without_conditions():
    none, reference, both = torch.randn(3, 1, 2, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    combined = guided_velocity((none, reference, both), (2.5, 7.0))
    torch.testing.assert_close(combined, (1 - 2.5) * none + (2.5 - 7) * reference + 7 * both)
    torch.testing.assert_close(guided_velocity((none, reference, both), (1.0, 1.0)), both)


def test_rounded_times_are_thousandths_in_bf16():
    assert [rounded_time(t) for t in (1.0, 0.9983, 0.9617, 0.5, 0.0)] == [1.0, 1.0, 0.96, 0.5, 0.0]


def ring(mask_of: torch.Tensor) -> torch.Tensor:
    mask = torch.ones_like(mask_of, dtype=torch.bool)
    mask[..., 1:-1, 1:-1] = False
    return mask


@pytest.mark.parametrize("every_step", [True, False])
def test_the_border_is_the_noised_reference_at_every_evaluation_and_clean_at_the_end(every_step):
    noise, reference, kept = torch.randn(3, 2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    border = Border(reference=reference, noise=noise, motion_frames=2, every_step=every_step)
    around = ring(noise)
    around[:, :, :2] = False
    followed = []

    def model(z, t):
        a = min(t[0].item(), 0.95)
        followed.append(torch.allclose(z[around], ((1 - a) * reference + a * noise)[around], atol=1e-6))
        assert torch.equal(z[:, :, :2], kept[:, :, :2])
        return torch.ones_like(z)

    result = sample(model, noise, num_steps=4, shift=5, z_motion=kept[:, :, :2], border=border)
    assert followed == [every_step] * 4
    assert torch.equal(result[around], reference[around])
    assert torch.equal(result[:, :, :2], kept[:, :, :2])
    inside = ~ring(noise)
    inside[:, :, :2] = False
    torch.testing.assert_close(result[inside], noise[inside] - 1)


def test_the_border_follows_the_rounded_time_of_the_network():
    noise, reference = torch.ones(1, 1, 1, 3, 3), torch.zeros(1, 1, 1, 3, 3)
    z = torch.zeros(1, 1, 1, 3, 3)
    Border(reference=reference, noise=noise, rounded=True).write(z, 0.9017)
    assert z[0, 0, 0, 0, 0] == pytest.approx(0.9) and z[0, 0, 0, 1, 1] == 0
