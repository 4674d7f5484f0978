"""Conditions of `VideoDiT`: the part of a window that is the same at every noise level, computed once.

B batch, f target frames, r reference frames, N tokens a frame, D width, S prompt rows, T audio rows, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Prompt and speech from which every block computes its own keys and values."""

    prompt: Tensor
    """[B, S, D]."""
    audio: Tensor
    """[B, T, D]."""
    starts: Tensor
    """int [f], first audio row of each target frame."""


@dataclass(frozen=True)
class TextKeys:
    """Keys and values of a prompt in one block, each [B, S, H, D / H]."""

    k: Tensor
    v: Tensor
    answer: Tensor | None = None
    """[B, 1, 1, D], the attention's output where it is the same for every query."""


@dataclass(frozen=True)
class AudioKeys:
    """Keys (rotated) and values of the audio rows in one block, each [B, T, H, D / H]."""

    k: Tensor
    v: Tensor
    starts: Tensor
    """int [f], first row that each target frame attends to."""
    cos: Tensor
    """[f, 1, 1, D / H / 2] fp32, rotation of each frame's queries."""
    sin: Tensor
    """Sines of the same rotation."""


@dataclass(frozen=True)
class BlockKeys:
    """Keys and values of prompt and speech in one block."""

    text: TextKeys
    audio: AudioKeys


@dataclass(frozen=True, kw_only=True)
class DiTConditions:
    """Everything that `VideoDiT.velocity` needs besides z_t and t, computed by `VideoDiT.conditions`."""

    reference: Tensor
    """[B, r, N, D] tokens of the reference frames."""
    z_mask: Tensor | None
    """[B, C, f, h, w] scaled latents that are embedded together with z_t, in training."""
    masked: Tensor | None
    """[B, f, N, D] share of z_mask in the target tokens, in sampling. An editor has neither z_mask nor masked."""
    clean: Tensor
    """[B, f] bool: motion frames, whose t is 0."""
    audio_enabled: Tensor | None
    """[B] bool, or None: audio attention is on for all samples."""
    blocks: tuple[BlockKeys | Rows, ...]
    """One entry a block: keys in sampling; rows in training, where a block may recompute its keys (checkpointing)."""
