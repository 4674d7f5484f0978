"""Cost of the frozen codec: training encodes every sample, pixel losses decode with gradients, pairs and dubs do both.

Wan's VAEs consist of convolutions and of one attention within a frame. A video's first latent holds one frame, every
other latent four. Either kind costs the same at every pixel, so a few numbers and the attention describe a network.
The numbers were counted on the networks of diffusers on the meta device; `tests/plan/test_codec_cost.py` counts them
again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xdub.config import Recipe
from xdub.precision import number_bytes


@dataclass(frozen=True, kw_only=True)
class _Wan:
    """Cost of a VAE of Wan for each latent pixel: of the first latent, and of every other one."""

    encode: tuple[float, float]
    """FLOPs of encoding."""
    decode: tuple[float, float]
    """FLOPs of decoding."""
    backward: float
    """Multiple of ``decode`` that the backward pass costs. The gradient costs as much as decoding, because no weight
    has one. A latent is decoded again, and its residual blocks are computed a third time (`model/wan_decoder.py`)."""
    state: Mapping[str, float]
    """Precision -> bytes that each decoded latent leaves for the next one and for the backward pass."""
    working: Mapping[str, tuple[float, float]]
    """Precision -> further bytes at the peak: for a slice of one latent, and for a longer one."""
    encoding: Mapping[str, tuple[float, float]]
    """Precision -> peak bytes of encoding: of a single latent, and of several, which are encoded one after another."""
    decoding: Mapping[str, tuple[float, float]]
    """Precision -> peak bytes of decoding without gradients, alike."""
    attention: tuple[float, float]
    """FLOPs of the encoder's and of the decoder's attention for each latent and squared number of its pixels; the
    backward pass costs three times that."""
    parameters: int
    """Number of weights."""


WAN = {
    # base_dim 96, 16 channels at 8 px
    "wan": _Wan(
        encode=(426_039_296.0, 1_280_731_136.0),
        decode=(687_882_752.0, 2_161_889_792.0),
        backward=2.4445,
        state={"fp32": 611_000.0, "bf16": 308_000.0},
        working={"fp32": (2_048_000.0, 3_137_000.0), "bf16": (1_252_000.0, 1_807_000.0)},
        encoding={"fp32": (251_000.0, 910_000.0), "bf16": (126_000.0, 476_000.0)},
        decoding={"fp32": (447_000.0, 1_770_000.0), "bf16": (224_000.0, 905_000.0)},
        attention=(4 * 384.0, 4 * 384.0),
        parameters=126_892_531,
    ),
    # base_dim 160, decoder_base_dim 256, 48 channels at 16 px
    "wan2.2": _Wan(
        encode=(1_188_800_512.0, 3_574_556_672.0),
        decode=(5_830_775_296.0, 18_835_608_064.0),
        backward=2.4769,
        state={"fp32": 1_851_000.0, "bf16": 938_000.0},
        working={"fp32": (6_462_000.0, 9_839_000.0), "bf16": (4_348_000.0, 6_055_000.0)},
        encoding={"fp32": (505_000.0, 1_890_000.0), "bf16": (253_000.0, 980_000.0)},
        decoding={"fp32": (1_495_000.0, 6_360_000.0), "bf16": (748_000.0, 3_180_000.0)},
        attention=(4 * 640.0, 4 * 1024.0),
        parameters=704_688_668,
    ),
}
"""Kind of codec -> counted numbers of its VAE."""


def encode_flops(recipe: Recipe, frames: int) -> float:
    """Return the FLOPs to encode a video of ``frames`` frames at the recipe's size."""
    latents = recipe.codec.geometry.latent_frames(frames)
    if recipe.codec.kind == "linear":
        return _linear_flops(recipe, latents)
    wan = WAN[recipe.codec.kind]
    return _wan_flops(recipe, latents, wan.encode, wan.attention[0])


def decode_flops(recipe: Recipe, latents: float) -> float:
    """Return the FLOPs to decode the first ``latents`` latents of a video without gradients (or a mean number)."""
    if recipe.codec.kind == "linear":
        return _linear_flops(recipe, latents)
    wan = WAN[recipe.codec.kind]
    return _wan_flops(recipe, latents, wan.decode, wan.attention[1])


def decode_backward_flops(recipe: Recipe, latents: int) -> float:
    """Return the FLOPs from a decoded slice of ``latents`` latents, not the first ones, back to the latents.

    They include what is decoded again.
    """
    if recipe.codec.kind == "linear":
        return _linear_flops(recipe, latents)
    wan = WAN[recipe.codec.kind]
    pixel = wan.backward * wan.decode[1]
    return _wan_flops(recipe, latents, (pixel, pixel), 3 * wan.attention[1])


def _linear_flops(recipe: Recipe, latents: float) -> float:
    """Count a product with one matrix of 192 or 768 rows."""
    return 2.0 * recipe.codec.channels * _pixels(recipe) * (192 + 768 * (latents - 1))


def _wan_flops(recipe: Recipe, latents: float, pixel: tuple[float, float], attention: float) -> float:
    pixels = _pixels(recipe)
    return pixels * (pixel[0] + pixel[1] * (latents - 1)) + attention * pixels**2 * latents


def _pixels(recipe: Recipe) -> int:
    """Return the number of latent pixels of a frame."""
    return (recipe.video.size // recipe.codec.geometry.space) ** 2


def codec_bytes(recipe: Recipe) -> float:
    """Return the bytes of the codec's weights on the GPU; a linear codec stays in fp32."""
    if recipe.codec.kind == "linear":
        return number_bytes("fp32") * recipe.codec.channels * (192 + 768)
    return number_bytes(recipe.train.precision) * WAN[recipe.codec.kind].parameters


def video_bytes(recipe: Recipe, frames: int) -> float:
    """Return the bytes of a video of ``frames`` frames in fp32."""
    return float(number_bytes("fp32") * 3 * frames * recipe.video.size**2)


def encoding_bytes(recipe: Recipe, frames: int) -> float:
    """Return the peak bytes of encoding one video of ``frames`` frames, without the video itself."""
    if recipe.codec.kind == "linear":
        # The patches of the video.
        return video_bytes(recipe, frames)
    peak = WAN[recipe.codec.kind].encoding[recipe.train.precision]
    return _pixels(recipe) * peak[recipe.codec.geometry.latent_frames(frames) > 1]


def decoding_bytes(recipe: Recipe, latents: int) -> float:
    """Return the peak bytes of decoding ``latents`` latents of a sample without gradients, with the fp32 video."""
    video = video_bytes(recipe, recipe.codec.geometry.frames(latents))
    if recipe.codec.kind == "linear":
        # The video and its patches.
        return 2 * video
    return _pixels(recipe) * WAN[recipe.codec.kind].decoding[recipe.train.precision][latents > 1] + video


def decoder_state_bytes(recipe: Recipe) -> float:
    """Return the bytes of the state that decoded latents leave for the next ones."""
    if recipe.codec.kind == "linear":
        return 0.0
    return _pixels(recipe) * WAN[recipe.codec.kind].state[recipe.train.precision]


def decode_bytes(recipe: Recipe, latents: int, samples: int) -> float:
    """Return the peak bytes of decoding ``latents`` latents of each sample forwards and backwards.

    States of all samples are kept until the backward pass, which decodes one latent of one sample at a time. Latents
    before the slice need less memory than its backward pass.
    """
    if recipe.codec.kind == "linear":
        # Only the video and its gradient, in three layouts.
        return samples * 4.0 * video_bytes(recipe, recipe.codec.geometry.frames(latents))
    wan, precision = WAN[recipe.codec.kind], recipe.train.precision
    working = wan.working[precision][latents > 1]
    return _pixels(recipe) * (wan.state[precision] * latents * samples + working)
