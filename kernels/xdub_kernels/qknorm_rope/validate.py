"""Argument checks of the q/k norm and rotation."""

from __future__ import annotations

from torch import Tensor

from xdub_kernels.dispatch import check_device, check_floating, check_like
from xdub_kernels.rope import Rope

NORMS = ("none", "head", "hidden")
"""Variants of RMSNorm: none, over D of each head, over H*D across heads."""


def check_weight(name: str, weight: Tensor | None, norm: str, q: Tensor) -> None:
    """Raise ``ValueError`` unless the weight fits the norm: [D] for "head", [H*D] for "hidden", None for "none"."""
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
    q: Tensor, k: Tensor, rope: Rope, *, q_weight: Tensor | None, k_weight: Tensor | None, norm: str
) -> None:
    """Run all checks of ``qk_norm_rope``; raise ``ValueError`` naming the argument that does not fit."""
    check_floating("q", q, "B L H D")
    check_like("k", k, "q", q)
    if not isinstance(rope, Rope):
        raise ValueError(f"rope must be a Rope, got {type(rope).__name__}")
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
    if q.shape[1] != rope.tokens:
        raise ValueError(
            f"q must have L = {rope.tokens} tokens: (f + reference_frames) * h * w, or their share, for "
            f"grid={rope.grid}, reference_frames={rope.reference_frames} and share={rope.share}, got {q.shape[1]}"
        )
    rope.axes(q.shape[-1])
    check_weight("q_weight", q_weight, norm, q)
    check_weight("k_weight", k_weight, norm, q)
