"""The four attentions of a block (paper Fig. 3).

B batch, F latent frames, N tokens a frame, D width, H heads, S prompt rows, T audio rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xdub.geometry import AUDIO_MARGIN, AUDIO_WINDOW, ROWS_PER_FRAME
from xdub.model.conditions import AudioKeys, TextKeys
from xdub.model.sequence import SharesSequence, self_attention
from xdub_kernels import Rope, attention, frame_audio_attention, gate_disabled


class SelfAttention(SharesSequence):
    """Self-attention with q/k RMSNorm and 3D RoPE; references are shifted in space (B.4).

    ``spatial=True`` attends within each frame (the block's 2D attention), else over all tokens (3D).
    """

    def __init__(self, hidden_size: int, num_heads: int, *, spatial: bool) -> None:
        super().__init__()
        self.num_heads, self.spatial = num_heads, spatial
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)
        self.q_weight = nn.Parameter(torch.ones(hidden_size // num_heads))
        self.k_weight = nn.Parameter(torch.ones(hidden_size // num_heads))

    def forward(self, x: Tensor, rope: Rope) -> Tensor:
        """Attend over x [B, F, N, D], target and reference frames in the order of ``rope``; return the same shape.

        N are the tokens of this rank; those of the other ranks of `group` take part.
        """
        q, k, v = rearrange(self.qkv(x), "b f n (three h d) -> three b f n h d", three=3, h=self.num_heads)
        attended = self_attention(
            q,
            k,
            v,
            rope,
            self.group,
            q_weight=self.q_weight.to(q.dtype),
            k_weight=self.k_weight.to(q.dtype),
            norm="head",
            spatial=self.spatial,
        )
        return self.out(rearrange(attended, "b f n h d -> b f n (h d)"))


class TextCrossAttention(nn.Module):
    """Attention of target tokens to the prompt, by default a learned null prompt."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(hidden_size, hidden_size)
        self.kv = nn.Linear(hidden_size, 2 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def keys(self, text: Tensor) -> TextKeys:
        """Return keys and values of the prompt's rows [B, S, D]."""
        return TextKeys(*rearrange(self.kv(text), "b s (two h d) -> two b s h d", two=2, h=self.num_heads))

    def prepared(self, text: Tensor) -> TextKeys:
        """Return `keys` for sampling; for a prompt of a single row they include the attention's output.

        The softmax over one row is 1, so the output is the same for every query. Training computes the queries anyway,
        because without gradients for their parameters the ranks would sum different sets of gradients.
        """
        keys = self.keys(text)
        if text.shape[1] > 1:
            return keys
        return TextKeys(keys.k, keys.v, self.out(rearrange(keys.v, "b s h d -> b s 1 (h d)")))

    def forward(self, x: Tensor, keys: TextKeys) -> Tensor:
        """Attend from x [B, F, N, D]; return [B, F, N, D], or [B, 1, 1, D] if the output is the same for all tokens."""
        if keys.answer is not None:
            return keys.answer
        frames = x.shape[1]
        q = rearrange(self.q(x), "b f n (h d) -> b (f n) h d", h=self.num_heads)
        return self.out(rearrange(attention(q, keys.k, keys.v), "b (f n) h d -> b f n (h d)", f=frames))


class AudioCrossAttention(nn.Module):
    """Attention of each latent frame to its own 16 audio rows (B.2); off per sample where ``enabled`` is False.

    Rows carry a rotary position relative to the window's centre, so that a head can distinguish the video frames of a
    latent.
    """

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(hidden_size, hidden_size)
        self.kv = nn.Linear(hidden_size, 2 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def keys(self, audio: Tensor, starts: Tensor) -> AudioKeys:
        """Return keys and values of audio [B, T, D], and rotation of the queries of frames at rows starts [F]."""
        k, v = rearrange(self.kv(audio), "b t (two h d) -> two b t h d", two=2, h=self.num_heads)
        rows = torch.arange(k.shape[1], device=k.device, dtype=torch.float32)
        centres = starts.to(k.device, torch.float32) + (AUDIO_WINDOW - 1) / 2
        k = rotate(k, *turn(rows[:, None], k.shape[-1]))
        # The positions [F, 1, 1] broadcast against q [B, F, N, H, D / H].
        return AudioKeys(k, v, starts, *turn(centres[:, None, None], k.shape[-1]))

    def forward(self, x: Tensor, keys: AudioKeys, enabled: Tensor | None) -> Tensor:
        """Attend from x [B, F, N, D]; return [B, F, N, D], zero where bool ``enabled`` [B] is False."""
        q = rotate(rearrange(self.q(x), "b f n (h d) -> b f n h d", h=self.num_heads), keys.cos, keys.sin)
        attended = frame_audio_attention(q, keys.k, keys.v, keys.starts, window=AUDIO_WINDOW, enabled=enabled)
        out = self.out(rearrange(attended, "b f n h d -> b f n (h d)"))
        # The gate also drops the projection's bias.
        return gate_disabled(out, enabled)


def turn(position: Tensor, size: int, theta: float = 100.0) -> tuple[Tensor, Tensor]:
    """Return cos and sin [..., size / 2] fp32 of 1D RoPE at ``position`` [..., 1], for heads of ``size`` channels."""
    half = size // 2
    frequency = theta ** (-torch.arange(half, device=position.device, dtype=torch.float32) / half)
    angle = position[..., None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply 1D RoPE to the last axis of x [..., H, D] by the angles of `turn` (broadcast), in interleaved pairs."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class AudioAdapter(nn.Module):
    """Two residual temporal convolutions on projected features, and an embedding of a row's place in its latent."""

    def __init__(self, audio_dim: int, hidden_size: int, rows_per_latent: int) -> None:
        super().__init__()
        self.rows_per_latent = rows_per_latent
        self.proj = nn.Linear(audio_dim, hidden_size)
        self.phase = nn.Parameter(torch.empty(rows_per_latent, hidden_size))
        self.reset_parameters()
        self.convs = nn.ModuleList(nn.Conv1d(hidden_size, hidden_size, 5, padding=2) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(2))
        self.norm_out = nn.LayerNorm(hidden_size)

    def reset_parameters(self) -> None:
        """Draw the embedding of the places; the layers have a method of the same name."""
        self.phase.data.copy_(torch.randn(self.phase.shape) * 0.5)

    def forward(self, audio: Tensor) -> Tensor:
        """Return rows [B, T, D] of audio features [B, T, audio_dim]."""
        rows = torch.arange(audio.shape[1], device=audio.device)
        # The second latent's rows begin after the margin and the first frame's own rows.
        phase = (rows - AUDIO_MARGIN - ROWS_PER_FRAME) % self.rows_per_latent
        x = self.proj(audio) + self.phase[phase]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = x + F.gelu(conv(norm(x).transpose(1, 2)).transpose(1, 2))
        return self.norm_out(x)
