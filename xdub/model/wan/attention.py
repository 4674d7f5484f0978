"""Attentions of a Wan block: q, k and v are normed over all heads together.

B batch, F latent frames, N tokens a frame, D width, H heads, S prompt rows, T audio rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from xdub.model.attention import rotate, turn
from xdub.model.conditions import TextKeys
from xdub.model.sequence import SharesSequence, self_attention
from xdub_kernels import Rope, frame_audio_attention, gate_disabled
from xdub_kernels.attention import attention

MAX_BIASED_ROWS = 16
"""Largest number of keys whose scores are computed as a plain matrix, with a bias for the padding."""


@dataclass(frozen=True)
class SpeechKeys:
    """Keys and values of the audio rows in one block, each [B, T, H, D / H]."""

    k: Tensor
    v: Tensor
    starts: Tensor
    """int [f], first row that each target frame attends to."""
    rotation: tuple[Tensor, Tensor] | None
    """Cosines and sines [f, 1, 1, D / H / 2] of the queries' rotation; None: neither queries nor keys are rotated."""


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    """Return the norm of x in x's dtype. Files of mixed number formats keep the weights of norms in fp32."""
    weight = getattr(norm, "weight", x)
    return norm(x.to(weight.dtype)).to(x.dtype)


class WanAttention(nn.Module):
    """Projections q, k, v, o and the norms of q and k, under the original names."""

    def __init__(self, size: int, heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads, self.eps = heads, eps
        self.q, self.k, self.v, self.o = (nn.Linear(size, size) for _ in range(4))
        self.norm_q, self.norm_k = nn.RMSNorm(size, eps=eps), nn.RMSNorm(size, eps=eps)

    def heads(self, x: Tensor) -> Tensor:
        """Divide channels [..., D] among heads [..., H, D / H]."""
        return x.unflatten(-1, (self.num_heads, -1))


class WanSelfAttention(WanAttention, SharesSequence):
    """Self-attention over all tokens, with 3D RoPE; references are shifted in space (B.4)."""

    def forward(self, x: Tensor, rope: Rope) -> Tensor:
        """Attend over x [B, F, N, D], target and reference frames in the order of ``rope``; return the same shape.

        N are the tokens of this rank; those of the other ranks of `group` take part.
        """
        attended = self_attention(
            self.heads(self.q(x)),
            self.heads(self.k(x)),
            self.heads(self.v(x)),
            rope,
            self.group,
            q_weight=self.norm_q.weight.to(x.dtype),
            k_weight=self.norm_k.weight.to(x.dtype),
            norm="hidden",
            eps=self.eps,
        )
        return self.o(rearrange(attended, "b f n h d -> b f n (h d)"))


class WanTextAttention(WanAttention):
    """Attention of target tokens to the prompt's rows and to the zero rows behind it, which Wan does not mask."""

    def keys(self, text: Tensor) -> TextKeys:
        """Return keys and values of the embedded rows [B, S, D]."""
        return TextKeys(self.heads(normed(self.norm_k, self.k(text))), self.heads(self.v(text)))

    def forward(self, x: Tensor, keys: TextKeys, padding: int) -> Tensor:
        """Attend from x [B, F, N, D] to ``keys``, whose last row stands for ``padding`` equal ones; return x's shape.

        ``padding=0``: all rows are the prompt's own.
        """
        q = rearrange(normed(self.norm_q, self.q(x)), "b f n (h d) -> b (f n) h d", h=self.num_heads)
        k, v = (rows.expand(len(x), -1, -1, -1) for rows in (keys.k, keys.v))
        attended = attention(q, k, v) if padding <= 1 else attend_padded(q, k, v, padding)
        return self.o(rearrange(attended, "b (f n) h d -> b f n (h d)", f=x.shape[1]))


def attend_padded(q: Tensor, k: Tensor, v: Tensor, padding: int) -> Tensor:
    """Return attention of q [B, L, H, d] to k and v [B, S, H, d], whose last row counts ``padding`` times.

    n equal keys have the weight of one key with log(n) added to its score, so the repeated rows need not exist.
    """
    if k.shape[1] > MAX_BIASED_ROWS:
        k, v = (torch.cat((rows, rows[:, -1:].expand(-1, padding - 1, -1, -1)), 1) for rows in (k, v))
        return attention(q, k.contiguous(), v.contiguous())
    scores = torch.einsum("blhd,bshd->bhls", q, k).float() / math.sqrt(q.shape[-1])
    bias = scores.new_zeros(k.shape[1])
    bias[-1] = math.log(padding)
    return torch.einsum("bhls,bshd->blhd", (scores + bias).softmax(-1).to(v.dtype), v)


class WanAudioAttention(WanAttention):
    """Attention of each latent frame to its own window of audio rows.

    ``rotary`` keys carry a position relative to the window's centre; the published editors' keys have none here.
    """

    def __init__(self, size: int, heads: int, eps: float, *, window: int, rotary: bool) -> None:
        super().__init__(size, heads, eps)
        self.window, self.rotary = window, rotary

    def keys(self, audio: Tensor, starts: Tensor) -> SpeechKeys:
        """Return keys and values of audio [B, T, D] for frames whose windows begin at rows starts [F]."""
        k, v = self.heads(normed(self.norm_k, self.k(audio))), self.heads(self.v(audio))
        if not self.rotary:
            return SpeechKeys(k, v, starts, None)
        rows = torch.arange(k.shape[1], device=k.device, dtype=torch.float32)
        centres = starts.to(k.device, torch.float32) + (self.window - 1) / 2
        k = rotate(k, *turn(rows[:, None], k.shape[-1]))
        return SpeechKeys(k, v, starts, turn(centres[:, None, None], k.shape[-1]))

    def forward(self, x: Tensor, keys: SpeechKeys, enabled: Tensor | None) -> Tensor:
        """Attend from x [B, F, N, D]; return [B, F, N, D], zero where bool ``enabled`` [B] is False."""
        q = self.heads(normed(self.norm_q, self.q(x)))
        if keys.rotation is not None:
            q = rotate(q, *keys.rotation)
        attended = frame_audio_attention(q, keys.k, keys.v, keys.starts, window=self.window, enabled=enabled)
        # The gate also drops the projection's bias.
        return gate_disabled(self.o(attended.flatten(-2)), enabled)
