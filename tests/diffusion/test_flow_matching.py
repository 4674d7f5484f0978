"""Flow matching (Eq. 2, 4, 5, 9, 10) and the Euler sampler."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from xdub.diffusion import (
    euler_timesteps,
    sample,
    sample_timesteps,
    shift_timesteps,
    velocity,
)
from xdub.seeding import torch_rng
from xdub_kernels import add_noise


def latents(batch=2, frames=5):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 3, frames, 4, 6, generator=generator) for _ in range(2)]


def test_the_true_velocity_leads_back_to_the_data_from_any_time():
    z0, eps = latents()
    t = torch.tensor([0.13, 0.97])
    z_t = add_noise(z0, eps, t, motion_frames=0)
    torch.testing.assert_close(z_t - t[:, None, None, None, None] * velocity(z0, eps), z0)


def test_motion_frames_stay_clean_per_sample():
    z0, eps = latents()
    z_t = add_noise(z0, eps, torch.tensor([0.5, 0.9]), motion_frames=torch.tensor([2, 0]))
    assert torch.equal(z_t[0, :, :2], z0[0, :, :2])
    assert not torch.equal(z_t[0, :, 2:], z0[0, :, 2:])
    assert not torch.equal(z_t[1, :, :2], z0[1, :, :2])


@given(u=st.floats(0, 1), alpha=st.floats(0.1, 10))
@example(u=1.0, alpha=0.1)
def test_the_timestep_shift_keeps_the_ends_and_has_an_inverse(u, alpha):
    t = shift_timesteps(torch.tensor(u, dtype=torch.float64), alpha)
    assert 0 <= t <= 1
    torch.testing.assert_close(shift_timesteps(t, 1 / alpha), torch.tensor(u, dtype=torch.float64))


@pytest.mark.parametrize(("alpha", "low", "high"), [(4, 0.7, 0.85), (1.5, 0.52, 0.65), (0.25, 0.15, 0.3)])
def test_each_phase_trains_in_its_noise_band(alpha, low, high):
    t = sample_timesteps(20_000, alpha, torch_rng("t"))
    assert low < t.mean() < high
    assert (t > 0).all() and (t < 1).all()


def test_euler_with_the_exact_velocity_field_of_one_point_returns_that_point():
    z0, eps = latents()
    field = lambda z, t: (z - z0) / t[:, None, None, None, None]  # noqa: E731
    torch.testing.assert_close(sample(field, eps, num_steps=7, shift=3.0), z0, atol=1e-5, rtol=1e-5)


def test_every_step_and_the_result_contain_the_motion_latents():
    z0, eps = latents()
    clean = []

    def model(z, t):
        clean.append(torch.equal(z[:, :, :2], z0[:, :, :2]))
        return torch.zeros_like(z)

    out = sample(model, eps, num_steps=3, z_motion=z0[:, :, :2])
    assert clean == [True] * 3
    assert torch.equal(out[:, :, :2], z0[:, :, :2])


def test_times_fall_from_one_to_zero():
    times = euler_timesteps(9, shift=3.0)
    assert times[0] == 1 and times[-1] == 0 and (times.diff() < 0).all()
    with pytest.raises(ValueError, match="num_steps=0"):
        euler_timesteps(0)
