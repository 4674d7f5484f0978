"""What the frozen codec costs: for every sample, which is encoded, and for pixel losses, which decode with gradients.

Wan's VAE is convolutions and one attention within a frame. A video's first latent holds one frame, every other one
four; both kinds cost the same at every place, so four numbers and the attention describe it. They were counted on the
network of diffusers on the meta device; `tests/plan/test_codec_cost.py` counts them again.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdub.config import Recipe


@dataclass(frozen=True, kw_only=True)
class _Wan:
    """By latent pixel, of the first latent and of every other one."""

    encode: tuple[float, float] = (426_039_296.0, 1_280_731_136.0)
    """FLOP"""
    decode: tuple[float, float] = (687_882_752.0, 2_161_889_792.0)
    """FLOP; the way back to the latents costs the same, for no weight has a gradient."""
    kept: tuple[float, float] = (1_607_837.0, 4_215_700.0)
    """Bytes that decoding with gradients keeps, fp32."""
    working: tuple[float, float] = (320_000.0, 900_000.0)
    """Bytes on top at the peak: of a single latent, of several."""
    attention: float = 4 * 384.0
    """FLOP by squared number of latent pixels and latent; backwards twice as many."""
    parameters: int = 126_892_531


WAN = _Wan()
BYTES = 4
"""`load_codec` loads it in fp32."""


def encode_flops(recipe: Recipe, frames: int) -> float:
    """FLOP to encode a video of ``frames`` frames at the recipe's size."""
    return _flops(recipe, frames, WAN.encode, rows=1)


def decode_flops(recipe: Recipe, latents: int) -> float:
    """FLOP to decode ``latents`` latents, once, without gradients."""
    return _flops(recipe, recipe.codec.geometry.frames(latents), WAN.decode, rows=1)


def decode_backward_flops(recipe: Recipe, latents: int) -> float:
    """FLOP from the gradient of the decoded video to that of the latents."""
    return _flops(recipe, recipe.codec.geometry.frames(latents), WAN.decode, rows=2)


def _flops(recipe: Recipe, frames: int, place: tuple[float, float], rows: int) -> float:
    geometry = recipe.codec.geometry
    latents, pixels = geometry.latent_frames(frames), (recipe.video.size // geometry.space) ** 2
    if recipe.codec.kind == "linear":  # one matrix of 192 or 768 rows
        return 2.0 * recipe.codec.channels * pixels * (192 + 768 * (latents - 1))
    return pixels * (place[0] + place[1] * (latents - 1)) + rows * WAN.attention * pixels**2 * latents


def codec_bytes(recipe: Recipe) -> float:
    """Bytes of its weights on the GPU."""
    return BYTES * (WAN.parameters if recipe.codec.kind == "wan" else recipe.codec.channels * (192 + 768))


def decode_bytes(recipe: Recipe, latents: int) -> float:
    """Peak bytes of decoding one sample's ``latents`` latents and of the way back."""
    pixels = (recipe.video.size // recipe.codec.geometry.space) ** 2
    if recipe.codec.kind == "linear":  # nothing but the video and its gradient, in three layouts
        frames = recipe.codec.geometry.frames(latents)
        return 4.0 * BYTES * 3 * frames * recipe.video.size**2
    return pixels * (WAN.kept[0] + WAN.kept[1] * (latents - 1) + WAN.working[latents > 1])
