"""Checks of everything that says how queries and keys are normed and rotated."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from xdub_kernels.dispatch import check_device, check_floating, check_like

ORDERS = ("target_first", "reference_first")
NORMS = ("none", "head", "hidden")


def split_head_dim(head_dim: int) -> tuple[int, int, int]:
    """Channels for (frame, row, column): D - 4*(D//6), 2*(D//6), 2*(D//6), as in released checkpoints."""
    third = 2 * (head_dim // 6)
    return head_dim - 2 * third, third, third


def check_axes_dim(axes_dim: Sequence[int] | None, head_dim: int) -> tuple[int, int, int]:
    """``axes_dim`` as a tuple, or the default split of ``head_dim``."""
    if head_dim % 2:
        raise ValueError(f"q must have an even head dim for rotation in pairs, got {head_dim}")
    if axes_dim is None:
        return split_head_dim(head_dim)
    axes = tuple(int(dim) for dim in axes_dim)
    if len(axes) != 3 or sum(axes) != head_dim or any(dim < 0 or dim % 2 for dim in axes):
        raise ValueError(f"axes_dim must be three even numbers with sum {head_dim} (head dim), got {axes}")
    return axes


def check_grid(grid: Sequence[int], reference_frames: int, tokens: int) -> tuple[int, int, int]:
    """``grid`` as a tuple of ints that, with the reference frames, accounts for every token."""
    sizes = tuple(int(n) for n in grid)
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(f"grid must be (frames, rows, columns), each at least 1, got {sizes}")
    frames, height, width = sizes
    if reference_frames not in (0, 1, frames):
        raise ValueError(f"reference_frames must be 0, 1 or f = {frames}, got {reference_frames}")
    expected = (frames + reference_frames) * height * width
    if tokens != expected:
        raise ValueError(
            f"q must have L = (f + reference_frames) * h * w = {expected} tokens for grid={sizes} and "
            f"reference_frames={reference_frames}, got {tokens}"
        )
    return sizes


def check_weight(name: str, weight: Tensor | None, norm: str, q: Tensor) -> None:
    """A norm weight fits the kind of norm: [D] for "head", [H*D] for "hidden", none for "none"."""
    if weight is None:
        return
    if norm == "none":
        raise ValueError(f"{name} was given but norm='none' uses no weight")
    size = q.shape[-1] if norm == "head" else q.shape[-2] * q.shape[-1]
    check_floating(name, weight, "H*D" if norm == "hidden" else "D")
    if weight.shape[0] != size:
        raise ValueError(f"{name} must have {size} elements for norm={norm!r}, got {weight.shape[0]}")
    check_device(name, weight, "q", q)


def check_qk(
    q: Tensor,
    k: Tensor,
    *,
    grid: Sequence[int],
    reference_frames: int,
    order: str,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    norm: str,
    axes_dim: Sequence[int] | None,
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """All checks of ``qk_norm_rope``; returns the grid and the axis split as tuples of ints."""
    check_floating("q", q, "B L H D")
    check_like("k", k, "q", q)
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
    sizes = check_grid(grid, reference_frames, q.shape[1])
    check_weight("q_weight", q_weight, norm, q)
    check_weight("k_weight", k_weight, norm, q)
    return sizes, check_axes_dim(axes_dim, q.shape[-1])
