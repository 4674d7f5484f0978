"""Sizes of miniatures: toys for the recipe `mini`, or one block at the widths of another recipe's networks."""

from __future__ import annotations

from dataclasses import dataclass

from xdub.config import Recipe
from xdub.config.network_sections import HUBERT_STATES
from xdub.config.speech_parts import JOINED
from xdub.errors import UserError

WAN_2_2_WIDTHS = {"base_dim": 160, "decoder_base_dim": 256}
"""Published widths of Wan 2.2's VAE, by diffusers' arguments."""
TOYS = ("mini", "mini-wan")
"""Names of the recipes that expect the toys."""
HEAD_DIM = 64
"""Width of an attention head of Whisper, CLIP and UMT5."""
LARGE_V3_BANDS, BANDS = 128, 80
"""Mel bands of Whisper large-v3, and of all other Whispers."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Widths and depths; the defaults are the toys, which a training step on two CPU cores can afford."""

    vae: int = 8
    """`base_dim` of Wan's VAEs."""
    vae_decoder: int = 8
    """`decoder_base_dim` of Wan 2.2's VAE."""
    vae_blocks: int = 1
    """Residual blocks of each resolution."""
    whisper: int = 32
    whisper_heads: int = 2
    joined: tuple[int, int] = (20, 12)
    """Widths of Whisper and wav2vec2 in one row."""
    joined_heads: tuple[int, int] = (2, 2)
    hubert: int = 8
    hubert_heads: int = 2
    wave_channels: int = 8
    """Channels of the convolutions of wav2vec2 and HuBERT."""
    clip: int = 32
    clip_heads: int = 2
    clip_image: int = 64
    """Side of CLIP's picture, px."""
    clip_patch: int = 16
    clip_projection: int = 32
    arcface: tuple[int, int, int, int] = (8, 8, 16, 16)
    """Channels of the four stages."""
    arcface_embedding: int = 32
    syncnet: int = 8
    """Channels of SyncNet's convolutions; 0 means the published widths."""
    text: int = 32
    text_heads: int = 2
    vision_language: int = 64
    """Width of both towers of Qwen2.5-VL."""
    segmenter: int = 8
    """Width of the first stage of SAM 2's backbone; the others double it."""
    segmenter_image: int = 128
    """Side of SAM 2's picture, px."""


def sizes_of(recipe: Recipe) -> Sizes:
    """Return the sizes of the networks that a recipe expects, with one block of each; `TOYS` expect the toys.

    Raise UserError for a width that no such network has.
    """
    audio, text = recipe.audio.dim, recipe.model.text_dim or 4096
    if recipe.audio.kind == "whisper" and audio % 2:
        raise UserError(f"audio.dim={audio}: the width of a Whisper is even, e.g. {audio + 1}")
    joined, hubert = joined_widths(audio), max(1, audio // len(HUBERT_STATES))
    if recipe.audio.kind == JOINED and sum(joined) != audio:
        raise UserError(f"audio.dim={audio}: Whisper and wav2vec2 have at least 3 numbers in a row")
    if recipe.name in TOYS:
        width = recipe.model.text_dim or Sizes.text
        return Sizes(
            whisper=audio,
            joined=joined,
            joined_heads=(_few_heads(joined[0]), _few_heads(joined[1])),
            hubert=hubert,
            hubert_heads=_few_heads(hubert),
            text=width,
            text_heads=_few_heads(width),
        )
    return Sizes(
        vae=WAN_2_2_WIDTHS["base_dim"] if recipe.codec.kind == "wan2.2" else 96,
        vae_decoder=WAN_2_2_WIDTHS["decoder_base_dim"],
        whisper=audio,
        whisper_heads=_heads(audio),
        joined=joined,
        joined_heads=(_heads(joined[0]), _heads(joined[1])),
        hubert=hubert,
        hubert_heads=_heads(hubert),
        wave_channels=512,
        clip=1024,
        clip_heads=16,
        clip_image=224,
        clip_patch=14,
        clip_projection=768,
        arcface=(64, 128, 256, 512),
        arcface_embedding=512,
        syncnet=0,
        text=text,
        text_heads=_heads(text),
    )


def joined_widths(dim: int) -> tuple[int, int]:
    """Return the even widths of Whisper and wav2vec2 in a row of ``dim`` numbers, in the published ratio 1280 : 768."""
    whisper = max(2, dim * 5 // 16 * 2)
    return whisper, max(1, dim - whisper)


def _few_heads(width: int) -> int:
    """Return the number of heads of a toy of any width."""
    return 2 - width % 2


def _heads(width: int) -> int:
    """Return the number of heads of about `HEAD_DIM` that divides a width."""
    return next(heads for heads in range(max(1, width // HEAD_DIM), 0, -1) if width % heads == 0)
