"""The four attentions of a block (paper Fig. 3). B batch, F latent frames, N tokens a frame, D width, T audio rows."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from xdub_kernels import frame_audio_attention, gate_disabled, shifted_rope_attention
from xdub_kernels.attention import attention

AUDIO_WINDOW = 16  # features at 50 Hz a latent frame attends to (B.2)


class SelfAttention(nn.Module):
    """Self-attention with q/k RMSNorm and 3D RoPE; references are shifted in space (B.4).

    ``spatial=True`` attends within each frame (the block's 2D attention), else over all tokens (3D).
    """

    def __init__(self, hidden_size: int, num_heads: int, *, spatial: bool, order: str) -> None:
        super().__init__()
        self.num_heads, self.spatial, self.order = num_heads, spatial, order
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)
        self.q_weight = nn.Parameter(torch.ones(hidden_size // num_heads))
        self.k_weight = nn.Parameter(torch.ones(hidden_size // num_heads))

    def forward(self, x: Tensor, grid: tuple[int, int, int], reference_frames: int) -> Tensor:
        """x [B, F, N, D] with F = target and reference frames in ``order`` -> [B, F, N, D]."""
        frames = x.shape[1]
        tokens = rearrange(x, "b f n d -> (b f) n d" if self.spatial else "b f n d -> b (f n) d")
        q, k, v = rearrange(self.qkv(tokens), "b l (three h d) -> three b l h d", three=3, h=self.num_heads)
        where = (
            dict(grid=(1, *grid[1:]), reference_frames=0)
            if self.spatial
            else dict(grid=grid, reference_frames=reference_frames, order=self.order)
        )
        attended = shifted_rope_attention(
            q,
            k,
            v,
            q_weight=self.q_weight.to(q.dtype),
            k_weight=self.k_weight.to(q.dtype),
            norm="head",
            **where,
        )
        out = self.out(rearrange(attended, "b l h d -> b l (h d)"))
        if self.spatial:
            return rearrange(out, "(b f) n d -> b f n d", f=frames)
        return rearrange(out, "b (f n) d -> b f n d", f=frames)


class TextCrossAttention(nn.Module):
    """Target tokens attend to the prompt, by default a learned null prompt."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(hidden_size, hidden_size)
        self.kv = nn.Linear(hidden_size, 2 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """x [B, F, N, D], text [B, S, D] -> [B, F, N, D]."""
        frames = x.shape[1]
        q = rearrange(self.q(x), "b f n (h d) -> b (f n) h d", h=self.num_heads)
        k, v = rearrange(self.kv(text), "b s (two h d) -> two b s h d", two=2, h=self.num_heads)
        return self.out(rearrange(attention(q, k, v), "b (f n) h d -> b f n (h d)", f=frames))


class AudioCrossAttention(nn.Module):
    """Each latent frame attends to its own 16 audio features (B.2); off per sample where ``enabled`` is False.

    Rows carry a rotary position relative to the window's centre, so that a head can tell the four video frames of a
    latent apart.
    """

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(hidden_size, hidden_size)
        self.kv = nn.Linear(hidden_size, 2 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, audio: Tensor, starts: Tensor, enabled: Tensor | None) -> Tensor:
        """x [B, F, N, D], audio [B, T, D], starts [F], enabled [B] bool or None -> [B, F, N, D]."""
        q = rearrange(self.q(x), "b f n (h d) -> b f n h d", h=self.num_heads)
        k, v = rearrange(self.kv(audio), "b t (two h d) -> two b t h d", two=2, h=self.num_heads)
        centres = starts.to(q.device, torch.float32) + (AUDIO_WINDOW - 1) / 2
        q = rotate(q, centres[:, None, None])  # positions [F, 1, 1] against q [B, F, N, H, D]
        k = rotate(k, torch.arange(k.shape[1], device=k.device, dtype=torch.float32)[:, None])
        attended = frame_audio_attention(q, k, v, starts, window=AUDIO_WINDOW, enabled=enabled)
        out = self.out(rearrange(attended, "b f n h d -> b f n (h d)"))
        return gate_disabled(out, enabled)  # drops the projection's bias, too


def rotate(x: Tensor, position: Tensor, theta: float = 100.0) -> Tensor:
    """1D RoPE over the last axis of x [..., H, D] at ``position`` [..., 1] (broadcast), interleaved pairs."""
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = position[..., None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)
