"""Speech of a Wan: the published editors' projection of each latent frame's own window, under its published names.

B batch, f latent frames, W rows of a window, D width of the backbone, P width of the projection.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xdub.model.wan.attention import normed

HEAD_DIM = 64
"""Width of the projection's attention heads."""
POSITIONS = 100
"""Rows of the table of positions, of which a window uses the first W."""
LAYERS = 4
"""Layers of the projection."""
EXPANSION = 4
"""Inner width of the feed-forward layers, in widths of the projection."""


def position_table(rows: int, width: int) -> Tensor:
    """Return sines at even and cosines at odd channels of positions 0 .. rows - 1, [1, rows, width]."""
    frequency = torch.exp(-math.log(10000.0) * torch.arange(0, width, 2) / width)
    angle = torch.arange(rows)[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)[None]


class Positions(nn.Module):
    """The table of positions, a buffer that published files hold."""

    pe: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("pe", position_table(POSITIONS, width))

    def forward(self, x: Tensor) -> Tensor:
        """Add the positions to rows [N, W, P]."""
        return x + self.pe[:, : x.shape[1]].to(x.dtype)


class GatedGelu(nn.Module):
    """Linear layer to twice the inner width: the first half times the GELU of the second half."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., inner] of x [..., width]."""
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU and a linear layer; a dropout of the release between them counts in the parameters' names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = EXPANSION * width
        self.net = nn.Sequential(GatedGelu(width, inner), nn.Identity(), nn.Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output of x [..., width]."""
        return self.net(x)


class WindowAttention(nn.Module):
    """Self-attention among the rows of a window."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_heads = max(1, width // HEAD_DIM)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Attend among rows x [N, W, P]; return the same shape."""
        q, k, v = (
            rearrange(linear(x), "n w (h d) -> n h w d", h=self.num_heads)
            for linear in (self.to_q, self.to_k, self.to_v)
        )
        return self.to_out(rearrange(F.scaled_dot_product_attention(q, k, v), "n h w d -> n w (h d)"))


class ProjectionLayer(nn.Module):
    """Attention within the window with added positions, then the feed-forward layer, both residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.ff = WindowAttention(width), FeedForward(width)
        self.pos_embed = Positions(width)

    def forward(self, x: Tensor) -> Tensor:
        """Update rows x [N, W, P]."""
        x = x + self.attn(self.pos_embed(normed(self.norm1, x)))
        return x + self.ff(normed(self.norm2, x))


class SpeechProjection(nn.Module):
    """Projection of the features of each latent frame's window to rows of the backbone's width."""

    def __init__(self, audio_dim: int, width: int, size: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(audio_dim, width)
        self.layers = nn.ModuleList(ProjectionLayer(width) for _ in range(LAYERS))
        self.proj_out = nn.Linear(width, size)

    def forward(self, windows: Tensor) -> Tensor:
        """Return rows [B, f W, D] of windows [B, f, W, audio_dim]; no row depends on another window."""
        rows = self.proj_in(windows.flatten(0, 1))
        for layer in self.layers:
            rows = layer(rows)
        return rearrange(self.proj_out(rows), "(b f) w d -> b (f w) d", b=windows.shape[0])
