"""Cost of the frozen codec: every sample is encoded, and pixel losses decode with gradients.

Wan's VAE consists of convolutions and of one attention within a frame. A video's first latent holds one frame, every
other latent four. Either kind costs the same at every pixel, so four numbers and the attention describe the network.
The numbers were counted on the network of diffusers on the meta device; `tests/plan/test_codec_cost.py` counts them
again.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdub.config import Recipe


@dataclass(frozen=True, kw_only=True)
class _Wan:
    """Cost of Wan's VAE for each latent pixel: of the first latent, and of every other one."""

    encode: tuple[float, float] = (426_039_296.0, 1_280_731_136.0)
    """FLOPs of encoding."""
    decode: tuple[float, float] = (687_882_752.0, 2_161_889_792.0)
    """FLOPs of decoding; the backward pass costs the same, because no weight has a gradient."""
    kept: tuple[float, float] = (1_607_837.0, 4_215_700.0)
    """Bytes that decoding with gradients keeps, in fp32."""
    working: tuple[float, float] = (320_000.0, 900_000.0)
    """Further bytes at the peak: for a single latent, and for several."""
    attention: float = 4 * 384.0
    """FLOPs of the attention for each latent and squared number of its pixels; the backward pass costs twice that."""
    parameters: int = 126_892_531
    """Number of weights."""


WAN = _Wan()
"""Counted numbers of Wan's VAE."""
BYTES = 4
"""Bytes of a weight: `load_codec` loads the codec in fp32."""


def encode_flops(recipe: Recipe, frames: int) -> float:
    """Return the FLOPs to encode a video of ``frames`` frames at the recipe's size."""
    return _flops(recipe, frames, WAN.encode, attentions=1)


def decode_flops(recipe: Recipe, latents: int) -> float:
    """Return the FLOPs to decode ``latents`` latents once, without gradients."""
    return _flops(recipe, recipe.codec.geometry.frames(latents), WAN.decode, attentions=1)


def decode_backward_flops(recipe: Recipe, latents: int) -> float:
    """Return the FLOPs of the backward pass from the decoded video to the latents."""
    return _flops(recipe, recipe.codec.geometry.frames(latents), WAN.decode, attentions=2)


def _flops(recipe: Recipe, frames: int, pixel: tuple[float, float], attentions: int) -> float:
    geometry = recipe.codec.geometry
    latents, pixels = geometry.latent_frames(frames), (recipe.video.size // geometry.space) ** 2
    if recipe.codec.kind == "linear":  # one matrix of 192 or 768 rows
        return 2.0 * recipe.codec.channels * pixels * (192 + 768 * (latents - 1))
    return pixels * (pixel[0] + pixel[1] * (latents - 1)) + attentions * WAN.attention * pixels**2 * latents


def codec_bytes(recipe: Recipe) -> float:
    """Return the bytes of the codec's weights on the GPU."""
    return BYTES * (WAN.parameters if recipe.codec.kind == "wan" else recipe.codec.channels * (192 + 768))


def decode_bytes(recipe: Recipe, latents: int) -> float:
    """Return the peak bytes of decoding ``latents`` latents of one sample forwards and backwards."""
    pixels = (recipe.video.size // recipe.codec.geometry.space) ** 2
    if recipe.codec.kind == "linear":  # only the video and its gradient, in three layouts
        frames = recipe.codec.geometry.frames(latents)
        return 4.0 * BYTES * 3 * frames * recipe.video.size**2
    return pixels * (WAN.kept[0] + WAN.kept[1] * (latents - 1) + WAN.working[latents > 1])
