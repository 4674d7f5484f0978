"""Audio cross-attention over per-frame windows; disabled samples stay exactly silent (paper B.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from xdub_kernels.audio_attention import op, reference
from xdub_kernels.dispatch import (
    UnavailableError,
    check_device,
    check_floating,
    check_integers,
    check_like,
    choose,
)

LARGEST_HEAD_DIM, LARGEST_WINDOW = 128, 64
"""Largest sizes that the Triton kernels keep in shared memory."""
__all__ = ["frame_audio_attention", "gate_disabled"]


def _check_enabled(enabled: Tensor | None, x: Tensor) -> None:
    if enabled is None:
        return
    if not isinstance(enabled, Tensor) or enabled.dtype != torch.bool:
        kind = enabled.dtype if isinstance(enabled, Tensor) else type(enabled).__name__
        raise ValueError(f"enabled must be a bool tensor, got {kind}")
    if enabled.shape != x.shape[:1]:
        raise ValueError(f"enabled must be [B] = [{x.shape[0]}], got {tuple(enabled.shape)}")
    check_device("enabled", enabled, "the input", x)


def frame_audio_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: Tensor,
    *,
    window: int = 16,
    enabled: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Return attention of every frame's tokens to that frame's own window of audio rows (paper B.2).

    Args:
        q: ``[B, F, N, H, D]``: N tokens in each of F frames.
        k, v: ``[B, T, H, D]``, q's dtype and device.
        starts: ``[F]`` or ``[B, F]`` ints, first row of each frame's window; may lie outside 0..T-1.
        window: rows per window. Rows outside 0..T-1 are masked; a window wholly outside gives zeros.
        enabled: ``[B]`` bool. False: output exactly zero, gradients exactly zero. None: all enabled. Apply
            ``gate_disabled`` after an output projection, because its bias would make a disabled sample audible.
        impl: ``"auto"`` runs Triton on a GPU that has it, else the reference.

    Returns:
        ``[B, F, N, H, D]`` in q's dtype; scores are scaled by 1/sqrt(D).

    Raises:
        ValueError: naming the argument whose shape, dtype, device or value does not fit.
    """
    check_floating("q", q, "B F N H D")
    check_floating("k", k, "B T H D")
    if (k.shape[0], *k.shape[2:]) != (q.shape[0], *q.shape[3:]):
        raise ValueError(f"k must match q's B, H and D {tuple(q.shape)}, got {tuple(k.shape)}")
    if k.dtype != q.dtype:
        raise ValueError(f"k must have q's dtype {q.dtype}, got {k.dtype}")
    check_device("k", k, "q", q)
    check_like("v", v, "k", k)
    check_integers("starts", starts)
    if tuple(starts.shape) not in ((q.shape[1],), tuple(q.shape[:2])):
        expected = f"[F] = [{q.shape[1]}] or [B, F] = {list(q.shape[:2])}"
        raise ValueError(f"starts must be {expected}, got {list(starts.shape)}")
    check_device("starts", starts, "q", q)
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    _check_enabled(enabled, q)
    starts = starts.to(torch.int64).expand(q.shape[0], q.shape[1])
    implementation = choose(impl, "frame_audio_attention", q)
    if implementation == "triton" and (q.shape[-1] > LARGEST_HEAD_DIM or window > LARGEST_WINDOW):
        if impl == "triton":
            limits = f"at most {LARGEST_HEAD_DIM} channels a head and windows of {LARGEST_WINDOW} rows"
            raise UnavailableError(
                f"impl='triton': frame_audio_attention supports {limits}; use 'reference' or 'auto'"
            )
        implementation = "reference"
    if implementation == "triton":
        return op.audio_attention_op(q, k, v, starts, window, enabled)
    return reference.frame_audio_attention(q, k, v, starts, window=window, enabled=enabled)


def gate_disabled(y: Tensor, enabled: Tensor | None) -> Tensor:
    """Return y ``[B, ...]`` with disabled samples exactly zero, in value and in gradient; None = all enabled."""
    _check_enabled(enabled, y)
    if enabled is None:
        return y
    return torch.where(enabled.view(-1, *(1,) * (y.dim() - 1)), y, 0.0)
