"""Correctness gate: a provider is timed only after its result is checked."""

from __future__ import annotations

import torch
from torch import Tensor

from perf.kernels.ops import Bench, Provider
from xdub_kernels.testing import error_budget, relative_error

SLACK = 3.0
"""Factor on the error budget: most competitors round more than once between input and result."""
ROWS = 61
"""Number of rows that are checked where the whole result is out of reach."""


class Wrong(Exception):
    """Raised when a provider's result is off by more than the budget."""


def differentiable(inputs: list[Tensor], trained: int) -> list[Tensor]:
    """Return leaves that share the inputs' values; the first ``trained`` require a gradient."""
    return [x.detach().requires_grad_(i < trained) for i, x in enumerate(inputs)]


def outputs(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return a provider's result as a tuple."""
    return result if isinstance(result, tuple) else (result,)


def output_gradients(outs: tuple[Tensor, ...], seed: int = 77) -> list[Tensor]:
    """Return a gradient for each output: normal values, 1 for a scalar loss."""
    if outs[0].dim() == 0:
        return [torch.ones_like(x) for x in outs]
    generator = torch.Generator(outs[0].device).manual_seed(seed)
    return [
        torch.randn(x.shape, generator=generator, device=x.device, dtype=torch.float32).to(x.dtype)
        for x in outs
    ]


def check(bench: Bench, provider: Provider, inputs: list[Tensor]) -> float:
    """Return the largest relative error over outputs and gradients.

    Raises `Wrong` with the tensor's name and the figures, and ``UnavailableError`` if the provider cannot run.
    """
    leaves = differentiable(inputs, bench.trained)
    outs = outputs(provider(*leaves))
    gradients_out = output_gradients(outs)
    gradients = torch.autograd.grad(outs, leaves[: bench.trained], gradients_out)
    if bench.exact_rows is not None:
        return _check_rows(bench, inputs, outs[0], gradients_out[0], gradients[0])
    exact = differentiable([x.double() if x.is_floating_point() else x for x in inputs], bench.trained)
    exact_outs = outputs(bench.exact(*exact))
    exact_gradients = torch.autograd.grad(
        exact_outs, exact[: bench.trained], [g.double() for g in gradients_out]
    )
    names = [f"output {i}" for i in range(len(outs))] + [f"gradient {i}" for i in range(len(gradients))]
    pairs = zip(names, [*outs, *gradients], [*exact_outs, *exact_gradients], strict=True)
    return max(_error(name, got, want) for name, got, want in pairs)


def _check_rows(bench: Bench, inputs: list[Tensor], out: Tensor, gradients_out: Tensor, dq: Tensor) -> float:
    """Check a few rows exactly: a row of the output, and of q's gradient, depends on that row of q alone."""
    assert bench.exact_rows is not None
    rows = torch.linspace(0, out.shape[1] - 1, ROWS, device=out.device).long()
    exact = [x.float() for x in inputs]
    exact[0].requires_grad_()
    want = bench.exact_rows(exact, rows)
    (gradient,) = torch.autograd.grad(want, exact[0], gradients_out[:, rows].float())
    return max(
        _error("output rows", out[:, rows], want),
        _error("gradient rows of q", dq[:, rows], gradient[:, rows]),
    )


def _error(name: str, got: Tensor, want: Tensor) -> float:
    """Return the relative error; raise `Wrong` if it is above the budget."""
    error, budget = relative_error(got, want), SLACK * error_budget(got.dtype, 4096)
    if not error <= budget:
        raise Wrong(f"{name}: relative error {error:.2e}, budget {budget:.2e}")
    return error
