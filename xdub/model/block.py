"""One block of the backbone: 2D attention -> 3D attention -> text -> audio -> FFN (paper B.1, B.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xdub.model.attention import AudioCrossAttention, SelfAttention, TextCrossAttention
from xdub.model.conditions import BlockConditions

if TYPE_CHECKING:
    from xdub.model.dit import DiTConfig


@dataclass(frozen=True)
class Modulation:
    """adaLN values of one sublayer, each [B, F, 1, D]."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Modulated input of the sublayer."""
        return x * (1 + self.scale) + self.shift


class Block(nn.Module):
    """2D attention -> 3D attention -> text -> audio -> FFN (B.1, B.2)."""

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        size, heads = cfg.hidden_size, cfg.num_heads
        self.order = cfg.order
        self.norm_2d, self.norm_3d, self.norm_ffn = (
            nn.LayerNorm(size, elementwise_affine=False) for _ in range(3)
        )
        self.norm_text, self.norm_audio = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention_2d = SelfAttention(size, heads, spatial=True, order=cfg.order)
        self.attention_3d = SelfAttention(size, heads, spatial=False, order=cfg.order)
        self.text = TextCrossAttention(size, heads)
        self.audio = AudioCrossAttention(size, heads)
        inner = int(cfg.ffn_ratio * size)
        self.ffn = nn.Sequential(nn.Linear(size, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, size))
        self.table = nn.Parameter(torch.zeros(9, size))  # added to the shared modulation

    def forward(
        self,
        x: Tensor,
        shared: Tensor,
        text: Tensor,
        audio: Tensor,
        starts: Tensor,
        enabled: Tensor | None,
        grid: tuple[int, int, int],
        reference_frames: int,
    ) -> Tensor:
        """x [B, f+r, N, D], shared [B, f+r, 9, D] -> [B, f+r, N, D]."""
        given = BlockConditions(self.text.keys(text), self.audio.keys(audio, starts))
        return self.denoise(x, shared, given, enabled, grid, reference_frames)

    def prepared(self, text: Tensor, audio: Tensor, starts: Tensor) -> BlockConditions:
        """What prompt and speech mean to this block at every noise level (sampling only)."""
        return BlockConditions(self.text.prepared(text), self.audio.keys(audio, starts))

    def denoise(
        self,
        x: Tensor,
        shared: Tensor,
        given: BlockConditions,
        enabled: Tensor | None,
        grid: tuple[int, int, int],
        reference_frames: int,
    ) -> Tensor:
        """`forward` with what prompt and speech mean to this block already at hand."""
        values = (shared + self.table.to(shared.dtype)).unsqueeze(-2).unbind(2)
        mod_2d, mod_3d, mod_ffn = (Modulation(*values[i : i + 3]) for i in (0, 3, 6))
        x = x + mod_2d.gate * self.attention_2d(mod_2d.apply(self.norm_2d(x)), grid, reference_frames)
        x = x + mod_3d.gate * self.attention_3d(mod_3d.apply(self.norm_3d(x)), grid, reference_frames)
        target, reference = split_reference(x, reference_frames, self.order)
        target = target + self.text(self.norm_text(target), given.text)
        target = target + self.audio(self.norm_audio(target), given.audio, enabled)
        x = join_reference(target, reference, self.order)
        return x + mod_ffn.gate * self.ffn(mod_ffn.apply(self.norm_ffn(x)))


def split_reference(x: Tensor, reference_frames: int, order: str) -> tuple[Tensor, Tensor]:
    """[B, f+r, ...] -> target [B, f, ...], reference [B, r, ...]."""
    if order == "target_first":
        return x[:, : x.shape[1] - reference_frames], x[:, x.shape[1] - reference_frames :]
    return x[:, reference_frames:], x[:, :reference_frames]


def join_reference(target: Tensor, reference: Tensor, order: str) -> Tensor:
    """Inverse of :func:`split_reference`."""
    return torch.cat((target, reference) if order == "target_first" else (reference, target), 1)
