"""Frame-wise audio cross-attention (paper B.2): every latent frame attends to its own short window of features."""

from __future__ import annotations

import torch
from torch import Tensor

from xdub_kernels.dispatch import compute_dtype, full_precision


def frame_audio_attention(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, *, window: int, enabled: Tensor | None
) -> Tensor:
    """Return attention of q [B, F, N, H, D], frame by frame, to ``window`` rows of k and v [B, T, H, D] from its start.

    ``starts`` is int64 [B, F]. Rows outside 0..T-1 are masked; a frame without any row, and every frame of a
    disabled sample, is exactly zero in value and gradient.
    """
    batch, frames, _, heads, dim = q.shape
    rows = k.shape[1]
    if rows == 0:
        return torch.where(q.new_zeros((), dtype=torch.bool), q, 0.0)
    dtype = compute_dtype(q)
    with full_precision(q):
        position = starts[:, :, None] + torch.arange(window, device=q.device)
        is_audible = (position >= 0) & (position < rows)
        if enabled is not None:
            is_audible = is_audible & enabled[:, None, None]
        sample = torch.arange(batch, device=q.device)[:, None, None]
        flat = (sample * rows + position.clamp(0, rows - 1)).flatten()

        def windows(x: Tensor) -> Tensor:
            rows_of_windows = x.to(dtype).reshape(batch * rows, heads * dim).index_select(0, flat)
            return rows_of_windows.view(batch, frames, window, heads, dim).masked_fill(
                ~is_audible[..., None, None], 0.0
            )

        scores = torch.einsum("bfnhd,bfwhd->bfhnw", q.to(dtype) * dim**-0.5, windows(k))
        # -inf would turn a window without rows into 0/0.
        scores = scores.masked_fill(~is_audible[:, :, None, None], torch.finfo(dtype).min)
        out = torch.einsum("bfhnw,bfwhd->bfnhd", scores.softmax(-1), windows(v))
        # Zero values already make such a frame zero; `where` also keeps NaN in q out of it.
        return torch.where(is_audible.any(-1)[..., None, None, None], out, 0.0).to(q.dtype)
