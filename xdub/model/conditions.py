"""What a clip's window gives the backbone at every noise level: computed once, read by every step of a sampler.

B batch, f target frames, r reference frames, N tokens a frame, D width, S prompt rows, T audio rows, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TextKeys:
    """Keys and values of a prompt in one block, each [B, S, H, D / H]."""

    k: Tensor
    v: Tensor
    answer: Tensor | None = None
    """[B, 1, 1, D]: what every query gets if it is the same for all of them."""


@dataclass(frozen=True)
class AudioKeys:
    """Keys (rotated) and values of the audio rows in one block, each [B, T, H, D / H]."""

    k: Tensor
    v: Tensor
    starts: Tensor
    """[f] first row that each target frame hears."""
    cos: Tensor
    """[f, 1, 1, D / H / 2] fp32: the turn of each frame's queries."""
    sin: Tensor


@dataclass(frozen=True)
class BlockConditions:
    """One block's share."""

    text: TextKeys
    audio: AudioKeys


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """All that `VideoDiT.denoise` needs besides z_t and t. Made by `VideoDiT.prepare`, with one set of weights: when
    another expert is switched on, they have to be made again."""

    reference: Tensor
    """[B, r, N, D] tokens of the reference frames."""
    masked: Tensor | None
    """[B, f, N, D] share of z_mask in the target tokens; None for an editor."""
    clean: Tensor
    """[B, f] bool: motion frames, whose t is 0."""
    audio_enabled: Tensor | None
    """[B] bool"""
    blocks: tuple[BlockConditions, ...]
