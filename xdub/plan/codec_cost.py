"""Cost of the frozen codec: every sample is encoded, and pixel losses decode with gradients.

Wan's VAEs consist of convolutions and of one attention within a frame. A video's first latent holds one frame, every
other latent four. Either kind costs the same at every pixel, so four numbers and the attention describe a network.
The numbers were counted on the networks of diffusers on the meta device; `tests/plan/test_codec_cost.py` counts them
again.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdub.config import Recipe


@dataclass(frozen=True, kw_only=True)
class _Wan:
    """Cost of a VAE of Wan for each latent pixel: of the first latent, and of every other one."""

    encode: tuple[float, float]
    """FLOPs of encoding."""
    decode: tuple[float, float]
    """FLOPs of decoding; the backward pass costs the same, because no weight has a gradient."""
    kept: tuple[float, float]
    """Bytes that decoding with gradients keeps, in fp32."""
    working: tuple[float, float]
    """Further bytes at the peak: for a single latent, and for several."""
    attention: tuple[float, float]
    """FLOPs of the encoder's and of the decoder's attention for each latent and squared number of its pixels; the
    backward pass costs twice that."""
    parameters: int
    """Number of weights."""


WAN = {
    # base_dim 96, 16 channels at 8 px
    "wan": _Wan(
        encode=(426_039_296.0, 1_280_731_136.0),
        decode=(687_882_752.0, 2_161_889_792.0),
        kept=(1_607_837.0, 4_215_700.0),
        working=(320_000.0, 900_000.0),
        attention=(4 * 384.0, 4 * 384.0),
        parameters=126_892_531,
    ),
    # base_dim 160, decoder_base_dim 256, 48 channels at 16 px
    "wan2.2": _Wan(
        encode=(1_188_800_512.0, 3_574_556_672.0),
        decode=(5_830_775_296.0, 18_835_608_064.0),
        kept=(5_083_601.0, 13_572_913.0),
        working=(955_776.0, 2_455_296.0),
        attention=(4 * 640.0, 4 * 1024.0),
        parameters=704_688_668,
    ),
}
"""Kind of codec -> counted numbers of its VAE."""
BYTES = 4
"""Bytes of a weight: `load_codec` loads the codec in fp32."""


def encode_flops(recipe: Recipe, frames: int) -> float:
    """Return the FLOPs to encode a video of ``frames`` frames at the recipe's size."""
    if recipe.codec.kind == "linear":
        return _linear_flops(recipe, frames)
    wan = WAN[recipe.codec.kind]
    return _wan_flops(recipe, frames, wan.encode, wan.attention[0])


def decode_flops(recipe: Recipe, latents: int) -> float:
    """Return the FLOPs to decode ``latents`` latents once, without gradients."""
    return _decode_flops(recipe, latents, attentions=1)


def decode_backward_flops(recipe: Recipe, latents: int) -> float:
    """Return the FLOPs of the backward pass from the decoded video to the latents."""
    return _decode_flops(recipe, latents, attentions=2)


def _decode_flops(recipe: Recipe, latents: int, attentions: int) -> float:
    frames = recipe.codec.geometry.frames(latents)
    if recipe.codec.kind == "linear":
        return _linear_flops(recipe, frames)
    wan = WAN[recipe.codec.kind]
    return _wan_flops(recipe, frames, wan.decode, attentions * wan.attention[1])


def _linear_flops(recipe: Recipe, frames: int) -> float:
    """Count a product with one matrix of 192 or 768 rows."""
    latents = recipe.codec.geometry.latent_frames(frames)
    return 2.0 * recipe.codec.channels * _pixels(recipe) * (192 + 768 * (latents - 1))


def _wan_flops(recipe: Recipe, frames: int, pixel: tuple[float, float], attention: float) -> float:
    latents, pixels = recipe.codec.geometry.latent_frames(frames), _pixels(recipe)
    return pixels * (pixel[0] + pixel[1] * (latents - 1)) + attention * pixels**2 * latents


def _pixels(recipe: Recipe) -> int:
    """Return the number of latent pixels of a frame."""
    return (recipe.video.size // recipe.codec.geometry.space) ** 2


def codec_bytes(recipe: Recipe) -> float:
    """Return the bytes of the codec's weights on the GPU."""
    if recipe.codec.kind == "linear":
        return BYTES * recipe.codec.channels * (192 + 768)
    return BYTES * WAN[recipe.codec.kind].parameters


def decode_bytes(recipe: Recipe, latents: int) -> float:
    """Return the peak bytes of decoding ``latents`` latents of one sample forwards and backwards."""
    if recipe.codec.kind == "linear":  # only the video and its gradient, in three layouts
        frames = recipe.codec.geometry.frames(latents)
        return 4.0 * BYTES * 3 * frames * recipe.video.size**2
    wan = WAN[recipe.codec.kind]
    return _pixels(recipe) * (wan.kept[0] + wan.kept[1] * (latents - 1) + wan.working[latents > 1])
