"""Adapter from audio features to the rows that the cross-attention reads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdub.geometry import AUDIO_MARGIN, ROWS_PER_FRAME


class AudioAdapter(nn.Module):
    """Two residual temporal convolutions on projected features, and an embedding of a row's place in its latent."""

    def __init__(self, audio_dim: int, hidden_size: int, rows_per_latent: int) -> None:
        super().__init__()
        self.rows_per_latent = rows_per_latent
        self.proj = nn.Linear(audio_dim, hidden_size)
        self.phase = nn.Parameter(torch.randn(rows_per_latent, hidden_size) * 0.5)
        self.convs = nn.ModuleList(nn.Conv1d(hidden_size, hidden_size, 5, padding=2) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(2))
        self.norm_out = nn.LayerNorm(hidden_size)

    def forward(self, audio: Tensor) -> Tensor:
        """Return rows [B, T, D] of audio features [B, T, audio_dim]."""
        rows = torch.arange(audio.shape[1], device=audio.device)
        # The second latent's rows begin after the margin and the first frame's own rows.
        phase = (rows - AUDIO_MARGIN - ROWS_PER_FRAME) % self.rows_per_latent
        x = self.proj(audio) + self.phase[phase]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = x + F.gelu(conv(norm(x).transpose(1, 2)).transpose(1, 2))
        return self.norm_out(x)
