"""Inputs and error budgets shared by tests and benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor

from xdub_kernels.rope import Rope


def attention_inputs(
    batch: int,
    rope: Rope,
    heads: int,
    dim: int,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> tuple[Tensor, Tensor, Tensor]:
    """Return normal q, k, v ``[B, L, H, D]`` for ``shifted_rope_attention``."""
    q, k, v = (normal((batch, rope.tokens, heads, dim), seed + i, dtype, device) for i in range(3))
    return q, k, v


def audio_inputs(
    batch: int,
    frames: int,
    tokens: int,
    rows: int,
    heads: int,
    dim: int,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> tuple[Tensor, Tensor, Tensor]:
    """Return normal q ``[B, F, N, H, D]`` and k, v ``[B, T, H, D]`` for ``frame_audio_attention``."""
    q = normal((batch, frames, tokens, heads, dim), seed, dtype, device)
    k, v = (normal((batch, rows, heads, dim), seed + i, dtype, device) for i in (1, 2))
    return q, k, v


def flow_inputs(
    shape: tuple[int, int, int, int, int],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> dict[str, Tensor]:
    """Return v_hat, z0, eps ``[B, C, f, h, w]`` and the two masks ``[B, 1, f, h, w]`` for ``weighted_flow_loss``."""
    names = ("v_hat", "z0", "eps")
    tensors = {name: normal(shape, seed + i, dtype, device) for i, name in enumerate(names)}
    for i, name in enumerate(("face_mask", "lip_mask")):
        tensors[name] = (normal((shape[0], 1, *shape[2:]), seed + 3 + i, dtype, device) > i).to(dtype)
    return tensors


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype, device: str = "cpu") -> Tensor:
    """Return standard normal values that depend on shape and seed alone, rounded to ``dtype``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)


def relative_error(actual: Tensor, exact: Tensor) -> float:
    """Return ||actual - exact|| / ||exact|| in float64; 0 for two empty or two zero tensors."""
    actual, exact = actual.detach().double(), exact.detach().double()
    difference = (actual - exact).norm().item()
    return difference / scale if (scale := exact.norm().item()) else difference


def error_budget(dtype: torch.dtype, depth: int) -> float:
    """Return the relative error that an implementation may have against float64.

    Inputs are exact in ``dtype``; inside, sums of ``depth`` terms run in fp32 (errors add like a random
    walk), and the result is rounded once to ``dtype``. A factor of 4 covers the handful of steps in between.
    """
    internal_eps = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    return 4 * (torch.finfo(dtype).eps / 2 + internal_eps * max(depth, 1) ** 0.5)


def embedded(x: Tensor) -> Tensor:
    """Return the values of ``x`` inside a larger block of NaN, strided like slices of a qkv tensor.

    An out-of-bounds read returns NaN.
    """
    block = torch.full(
        [n + 1 for n in x.shape[:-1]] + [x.shape[-1] + 8], float("nan"), dtype=x.dtype, device=x.device
    )
    view = block[tuple(slice(0, n) for n in x.shape)]
    return view.copy_(x)


def assert_within_budget(actual: Tensor, exact: Tensor, *, depth: int, slack: float = 1.0) -> None:
    """Assert that ``actual`` (any dtype) is finite and as close to the float64 ``exact`` as ``error_budget`` allows.

    ``slack`` widens the budget where more than one step rounds to the dtype.
    """
    assert actual.shape == exact.shape, f"shape {tuple(actual.shape)}, expected {tuple(exact.shape)}"
    assert bool(torch.isfinite(actual).all()), "result has NaN or inf"
    error, budget = relative_error(actual, exact), slack * error_budget(actual.dtype, depth)
    assert error <= budget, f"relative error {error:.2e} is above the budget {budget:.2e}"
