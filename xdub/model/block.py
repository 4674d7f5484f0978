"""One block of the backbone: 2D attention -> 3D attention -> text -> audio -> FFN (paper B.1, B.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xdub.config import ModelConfig
from xdub.model.attention import AudioCrossAttention, SelfAttention, TextCrossAttention
from xdub.model.conditions import BlockKeys, Rows
from xdub_kernels import Rope


@dataclass(frozen=True)
class Modulation:
    """Shift, scale and gate of one sublayer (adaLN), each [B, F, 1, D]."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Return the sublayer's input x [B, F, N, D], modulated."""
        return x * (1 + self.scale) + self.shift


class Block(nn.Module):
    """2D attention -> 3D attention -> text -> audio -> FFN (B.1, B.2)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        size, heads = cfg.hidden_size, cfg.num_heads
        self.norm_2d, self.norm_3d, self.norm_ffn = (
            nn.LayerNorm(size, elementwise_affine=False) for _ in range(3)
        )
        self.norm_text, self.norm_audio = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention_2d = SelfAttention(size, heads, spatial=True)
        self.attention_3d = SelfAttention(size, heads, spatial=False)
        self.text = TextCrossAttention(size, heads)
        self.audio = AudioCrossAttention(size, heads)
        inner = int(cfg.ffn_ratio * size)
        self.ffn = nn.Sequential(nn.Linear(size, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, size))
        # The table is added to the shared modulation.
        self.table = nn.Parameter(torch.zeros(9, size))

    def forward(
        self, x: Tensor, shared: Tensor, keys: BlockKeys | Rows, enabled: Tensor | None, rope: Rope
    ) -> Tensor:
        """Update tokens x [B, f+r, N, D] under the modulation ``shared`` [B, f+r, 9, D].

        ``keys`` are those of prompt and speech, or the rows to compute them from. ``enabled``, bool [B], turns the
        audio attention of each sample on.
        """
        if isinstance(keys, Rows):
            keys = BlockKeys(self.text.keys(keys.prompt), self.audio.keys(keys.audio, keys.starts))
        values = (shared + self.table.to(shared.dtype)).unsqueeze(-2).unbind(2)
        mod_2d, mod_3d, mod_ffn = (Modulation(*values[i : i + 3]) for i in (0, 3, 6))
        x = x + mod_2d.gate * self.attention_2d(mod_2d.apply(self.norm_2d(x)), rope)
        x = x + mod_3d.gate * self.attention_3d(mod_3d.apply(self.norm_3d(x)), rope)
        target, reference = split_reference(x, rope.reference_frames, rope.order)
        target = target + self.text(self.norm_text(target), keys.text)
        target = target + self.audio(self.norm_audio(target), keys.audio, enabled)
        x = join_reference(target, reference, rope.order)
        return x + mod_ffn.gate * self.ffn(mod_ffn.apply(self.norm_ffn(x)))

    def shrink_branches(self, factor: float) -> None:
        """Scale the residual branches' last layers by ``factor`` and open all gates: the initialisation of a block."""
        ffn_out = self.ffn[2]
        assert isinstance(ffn_out, nn.Linear)
        for out in (self.attention_2d.out, self.attention_3d.out, self.text.out, self.audio.out, ffn_out):
            out.weight.data.mul_(factor)
        self.table.data[2::3].fill_(1.0)

    def prepared(self, rows: Rows) -> BlockKeys:
        """Return the keys that serve every noise level, for sampling."""
        return BlockKeys(self.text.prepared(rows.prompt), self.audio.keys(rows.audio, rows.starts))


def split_reference(x: Tensor, reference_frames: int, order: str) -> tuple[Tensor, Tensor]:
    """Split x [B, f+r, ...] into target [B, f, ...] and reference [B, r, ...]."""
    if order == "target_first":
        return x[:, : x.shape[1] - reference_frames], x[:, x.shape[1] - reference_frames :]
    return x[:, reference_frames:], x[:, :reference_frames]


def join_reference(target: Tensor, reference: Tensor, order: str) -> Tensor:
    """Join target and reference in the token order: the inverse of `split_reference`."""
    return torch.cat((target, reference) if order == "target_first" else (reference, target), 1)
