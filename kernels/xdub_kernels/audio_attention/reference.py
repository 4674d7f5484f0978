"""Frame-wise audio cross-attention (paper B.2): every latent frame hears its own short window of features."""

from __future__ import annotations

import torch
from torch import Tensor

from xdub_kernels.dispatch import compute_dtype, full_precision


def frame_audio_attention(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, *, window: int, enabled: Tensor | None
) -> Tensor:
    """q [B, F, N, H, D] attends, frame by frame, to ``window`` rows of k and v [B, T, H, D] from its start.

    ``starts`` is int64 [B, F]. Rows outside 0..T-1 take no part; a frame without any row, and every frame of
    a disabled sample, is exactly zero and sends back exactly zero.
    """
    batch, frames, _, heads, dim = q.shape
    rows = k.shape[1]
    if rows == 0:
        return torch.where(q.new_zeros((), dtype=torch.bool), q, 0.0)
    dtype = compute_dtype(q)
    with full_precision(q):
        position = starts[:, :, None] + torch.arange(window, device=q.device)
        heard = (position >= 0) & (position < rows)
        if enabled is not None:
            heard = heard & enabled[:, None, None]
        sample = torch.arange(batch, device=q.device)[:, None, None]
        flat = (sample * rows + position.clamp(0, rows - 1)).flatten()

        def windows(x: Tensor) -> Tensor:
            taken = x.to(dtype).reshape(batch * rows, heads * dim).index_select(0, flat)
            return taken.view(batch, frames, window, heads, dim).masked_fill(~heard[..., None, None], 0.0)

        scores = torch.einsum("bfnhd,bfwhd->bfhnw", q.to(dtype) * dim**-0.5, windows(k))
        # A large negative number instead of -inf: a window without rows must not become 0/0.
        scores = scores.masked_fill(~heard[:, :, None, None], torch.finfo(dtype).min)
        out = torch.einsum("bfhnw,bfwhd->bfnhd", scores.softmax(-1), windows(v))
        # Zero values already make such a frame zero; this also cuts it off from NaN in q.
        return torch.where(heard.any(-1)[..., None, None, None], out, 0.0).to(q.dtype)
