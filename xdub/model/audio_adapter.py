"""From audio features to rows that the cross-attention reads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS_PER_LATENT = 8  # 50 Hz features of the 4 video frames in a latent frame
CONTEXT_ROWS = 4  # rows of context given on each side of a window


class AudioAdapter(nn.Module):
    """Two residual temporal convolutions on projected features; every row knows its place within its latent frame."""

    def __init__(self, audio_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Linear(audio_dim, hidden_size)
        self.phase = nn.Parameter(torch.randn(ROWS_PER_LATENT, hidden_size) * 0.5)
        self.convs = nn.ModuleList(nn.Conv1d(hidden_size, hidden_size, 5, padding=2) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(2))
        self.norm_out = nn.LayerNorm(hidden_size)

    def forward(self, audio: Tensor) -> Tensor:
        """[B, T, audio_dim] -> [B, T, D]."""
        rows = torch.arange(audio.shape[1], device=audio.device)
        phase = (
            rows - CONTEXT_ROWS + ROWS_PER_LATENT - 2
        ) % ROWS_PER_LATENT  # latent k >= 1 starts at frame 4k - 3
        x = self.proj(audio) + self.phase[phase]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = x + F.gelu(conv(norm(x).transpose(1, 2)).transpose(1, 2))
        return self.norm_out(x)
