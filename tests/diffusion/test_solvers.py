"""Euler, Heun and Adams-Bashforth on equations whose solution is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xdub.diffusion import euler_timesteps, evaluations, sample
from xdub.diffusion.sampler import SOLVERS

solvers = pytest.mark.parametrize("solver", SOLVERS)


def error(solver: str, num_steps: int, shift: float) -> float:
    """Return the error of z(0), for dz/dt = -2 z cos(3 t) from z(1) = 1, in float64."""

    def field(z, t):
        return -2 * z * torch.cos(3 * t.double())[:, None, None, None, None]

    noise = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    result = sample(field, noise, num_steps=num_steps, shift=shift, solver=solver).item()
    return abs(result - math.exp(2 / 3 * math.sin(3.0)))


@pytest.mark.parametrize("shift", [1.0, 0.5, 3.0])
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("ab2", 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver, order, shift):
    ratios = [error(solver, n, shift) / error(solver, 2 * n, shift) for n in (128, 256)]
    assert all(0.8 * 2**order < ratio < 1.2 * 2**order for ratio in ratios), ratios


@given(st.sampled_from(SOLVERS), st.integers(1, 9), st.floats(0.2, 8))
def test_a_constant_velocity_is_integrated_exactly(solver, num_steps, shift):
    noise, v = torch.randn(2, 2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    result = sample(lambda z, t: v, noise, num_steps=num_steps, shift=shift, solver=solver)
    torch.testing.assert_close(result, noise - v, atol=1e-5, rtol=1e-5)


@solvers
def test_second_order_integrates_a_velocity_linear_in_time_exactly_except_for_one_euler_step(solver):
    """For v = t, Adams-Bashforth has no earlier slope in its first step, and Heun does not evaluate t = 0."""
    times = euler_timesteps(6, 3.0)
    field = lambda z, t: t[:, None, None, None, None].expand_as(z)  # noqa: E731
    result = sample(field, torch.zeros(1, 1, 1, 1, 1), num_steps=6, shift=3.0, solver=solver).item()
    first, last = times.diff()[[0, -1]].tolist()
    expected = {"heun": -0.5 - last**2 / 2, "ab2": -0.5 - first**2 / 2}
    if solver == "euler":
        assert abs(result + 0.5) > 0.05
    else:
        assert result == pytest.approx(expected[solver], abs=1e-5)


@solvers
def test_every_evaluation_and_the_result_contain_the_motion_latents(solver):
    noise, kept = torch.randn(2, 2, 3, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    clean = []

    def model(z, t):
        clean.append(torch.equal(z[:, :, :2], kept[:, :, :2]))
        return z * t[:, None, None, None, None]

    before = noise.clone()
    out = sample(model, noise, num_steps=3, solver=solver, z_motion=kept[:, :, :2])
    assert clean == [True] * evaluations(solver, 3)
    assert torch.equal(out[:, :, :2], kept[:, :, :2])
    assert torch.equal(noise, before)


@solvers
def test_on_step_is_called_with_the_time_of_every_evaluation(solver):
    reported, evaluated = [], []
    sample(
        lambda z, t: evaluated.append(t.tolist()) or z,
        torch.zeros(2, 1, 1, 1, 1),
        num_steps=4,
        shift=2.0,
        solver=solver,
        on_step=reported.append,
    )
    assert evaluated == [[t, t] for t in reported] and len(reported) == evaluations(solver, 4)
    assert set(reported) <= set(euler_timesteps(4, 2.0).tolist())


def test_adams_bashforth_restarts_where_another_field_begins():
    """The result of two constant fields is exact only if the second field's first step does not extrapolate."""
    times = euler_timesteps(8).tolist()
    field = lambda z, t: torch.where(t[0] > 0.5, 1.0, -3.0) * torch.ones_like(z)  # noqa: E731
    noise = torch.zeros(1, 1, 1, 1, 1)
    exact = sum((b - a) * (1.0 if a > 0.5 else -3.0) for a, b in zip(times[:-1], times[1:], strict=True))
    restarted = sample(field, noise, num_steps=8, solver="ab2", field_at=lambda t: t > 0.5).item()
    extrapolated = sample(field, noise, num_steps=8, solver="ab2").item()
    assert restarted == pytest.approx(exact) and abs(extrapolated - exact) > 0.1


def test_an_unknown_solver_is_named():
    with pytest.raises(ValueError, match="solver='rk4': use one of euler, heun, ab2"):
        sample(lambda z, t: z, torch.zeros(1, 1, 1, 1, 1), num_steps=1, solver="rk4")
