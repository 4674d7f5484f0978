"""Integration of dz/dt = v from noise (t = 1) to data (t = 0).

``euler`` is of first order. ``heun`` is of second order with two evaluations a step, except that the last step is
Euler's: at t = 0 the field no longer points from noise to data. ``ab2`` (Adams-Bashforth) is of second order with one
evaluation a step, and estimates the slope's change from the previous step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xdub.diffusion.border import Border
from xdub.diffusion.flow_matching import shift_timesteps

ModelFn = Callable[[Tensor, Tensor], Tensor]
"""Function of z_t [B, C, f, h, w] and t [B] that returns v_hat [B, C, f, h, w]."""
SOLVERS = ("euler", "heun", "ab2")
"""Names of the solvers."""


def euler_timesteps(num_steps: int, shift: float = 1.0) -> Tensor:
    """Return num_steps + 1 times from 1 to 0; ``shift`` > 1 spends more steps at high noise (Eq. 2)."""
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps}: at least one step is needed")
    return shift_timesteps(torch.linspace(1, 0, num_steps + 1), shift)


def evaluations(solver: str, num_steps: int) -> int:
    """Return the number of times that `sample` calls the model."""
    return 2 * num_steps - 1 if solver == "heun" else num_steps


def evaluation_times(solver: str, num_steps: int, shift: float = 1.0) -> list[float]:
    """Return t of every call of the model in `sample`, in order."""
    times = euler_timesteps(num_steps, shift).tolist()
    if solver != "heun":
        return times[:-1]
    return [times[0], *(t for time in times[1:-1] for t in (time, time))]


def sample(
    model_fn: ModelFn,
    noise: Tensor,
    *,
    num_steps: int,
    shift: float = 1.0,
    solver: str = "euler",
    z_motion: Tensor | None = None,
    border: Border | None = None,
    on_step: Callable[[float], None] | None = None,
    field_at: Callable[[float], object] | None = None,
) -> Tensor:
    """Integrate ``noise`` [B, C, f, h, w] to z_0. Nothing in the loop waits for the device.

    Args:
        model_fn: the velocity.
        noise: [B, C, f, h, w] at t = 1.
        num_steps: steps of the solver.
        shift: shift of the times, Eq. 2.
        solver: one of SOLVERS.
        z_motion: clean motion latents [B, C, m, h, w]; they replace the first m frames before every evaluation and in
            the result.
        border: ring of latent positions that is copied from the reference, before every evaluation or at the end.
        on_step: called before each evaluation with its t (expert switching, progress).
        field_at: returns the name of the vector field at t, e.g. an expert. Where the name changes, ``ab2`` restarts,
            because the previous step's slope belongs to another field.

    Raises:
        ValueError: the solver is unknown, or there is no step.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver!r}: use one of {', '.join(SOLVERS)}")
    times = euler_timesteps(num_steps, shift)
    marks = times.tolist()
    t_all = times.to(noise.device)[:, None].repeat(1, noise.shape[0])

    def slope(z: Tensor, n: int) -> Tensor:
        if z_motion is not None:
            z[:, :, : z_motion.shape[2]] = z_motion
        if border is not None and border.every_step:
            border.write(z, marks[n])
        if on_step is not None:
            on_step(marks[n])
        return model_fn(z, t_all[n]).to(z.dtype)

    z = noise.clone()
    # Slope, step and field of the previous step.
    before: tuple[Tensor, float, object] | None = None
    for n in range(num_steps):
        h = marks[n + 1] - marks[n]
        v = slope(z, n)
        if solver == "heun" and n + 1 < num_steps:
            v = (v + slope(z + h * v, n + 1)) / 2
        elif solver == "ab2":
            field = None if field_at is None else field_at(marks[n])
            last, before = before, (v, h, field)
            if last is not None and last[2] == field:
                v = v + h / (2 * last[1]) * (v - last[0])
        z = z + h * v
    if z_motion is not None:
        z[:, :, : z_motion.shape[2]] = z_motion
    if border is not None:
        border.write(z, 0.0)
    return z
