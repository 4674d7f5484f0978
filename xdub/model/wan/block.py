"""One block of a Wan: 3D self-attention, prompt, speech, FFN; norms and modulation compute in fp32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdub.model.block import join_reference, split_reference
from xdub.model.conditions import TextKeys
from xdub.model.wan.attention import (
    SpeechKeys,
    WanAudioAttention,
    WanSelfAttention,
    WanTextAttention,
    normed,
)
from xdub.model.wan.config import WanConfig
from xdub_kernels import Rope


@dataclass(frozen=True)
class WanRows:
    """Prompt and speech from which a block computes its keys and values."""

    prompt: Tensor
    """[B or 1, S, D]."""
    padding: int
    """Number of equal rows that the last row of the prompt stands for; 0: every row is the prompt's own."""
    audio: Tensor | None
    """[B, T, D]; None: no speech."""
    starts: Tensor
    """int [f], first audio row of each target frame."""


@dataclass(frozen=True)
class WanKeys:
    """Keys and values of prompt and speech in one block."""

    text: TextKeys
    padding: int
    speech: SpeechKeys | None
    """Keys of the audio rows; None without audio attention or without speech."""


class WanBlock(nn.Module):
    """3D self-attention -> text -> audio -> FFN; self-attention and FFN are modulated (adaLN)."""

    def __init__(self, cfg: WanConfig, *, speaks: bool) -> None:
        """Build a block, with audio attention if it ``speaks``."""
        super().__init__()
        size, heads, eps = cfg.hidden_size, cfg.num_heads, cfg.eps
        self.size, self.eps = size, eps
        self.self_attn = WanSelfAttention(size, heads, eps)
        self.cross_attn = WanTextAttention(size, heads, eps)
        self.norm3 = nn.LayerNorm(size, eps=eps) if cfg.cross_attn_norm else nn.Identity()
        if speaks:
            self.norm4 = nn.LayerNorm(size, eps=eps)
            self.audio_attn = WanAudioAttention(
                size, heads, eps, window=cfg.audio_window, rotary=cfg.speech == "frames"
            )
        self.speaks = speaks
        self.ffn = nn.Sequential(
            nn.Linear(size, cfg.inner), nn.GELU(approximate="tanh"), nn.Linear(cfg.inner, size)
        )
        # Rows: shift, scale and gate of self-attention, then those of the FFN; added to the shared modulation.
        self.modulation = nn.Parameter(torch.randn(1, 6, size) / size**0.5)

    def forward(
        self, x: Tensor, shared: Tensor, keys: WanKeys | WanRows, enabled: Tensor | None, rope: Rope
    ) -> Tensor:
        """Update tokens x [B, F, N, D] under the modulation ``shared`` [B, F, n, 6, D].

        n is 1, or N if every token has a time of its own. ``keys`` are those of prompt and speech, or the rows to
        compute them from. ``enabled``, bool [B], turns the audio attention of each sample on.
        """
        if isinstance(keys, WanRows):
            keys = self.prepared(keys)
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (
            self.modulation.float() + shared.float()
        ).unbind(-2)
        x = gated(x, self.self_attn(self._modulated(x, shift, scale), rope), gate)
        target, reference = split_reference(x, rope.reference_frames, rope.order)
        target = target + self.cross_attn(normed(self.norm3, target), keys.text, keys.padding)
        if keys.speech is not None:
            target = target + self.audio_attn(normed(self.norm4, target), keys.speech, enabled)
        x = join_reference(target, reference, rope.order)
        return gated(x, self.ffn(self._modulated(x, ffn_shift, ffn_scale)), ffn_gate)

    def prepared(self, rows: WanRows) -> WanKeys:
        """Return the keys that serve every noise level."""
        speech = None
        if self.speaks and rows.audio is not None:
            speech = self.audio_attn.keys(rows.audio, rows.starts)
        return WanKeys(self.cross_attn.keys(rows.prompt), rows.padding, speech)

    def _modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return modulated(x, shift, scale, self.eps)


def modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Return the layer norm of x [B, F, N, D], scaled and shifted in fp32, in x's dtype."""
    return (F.layer_norm(x, x.shape[-1:], eps=eps).float() * (1 + scale) + shift).to(x.dtype)


def gated(x: Tensor, branch: Tensor, gate: Tensor) -> Tensor:
    """Return x + gate * branch, computed in fp32, in x's dtype."""
    return (x.float() + branch.float() * gate).to(x.dtype)
