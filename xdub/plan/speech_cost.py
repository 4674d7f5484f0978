"""Cost of the frozen audio encoder, which hears every window of video once.

Whisper's encoder pads any sound to 30 s, so a window of one second costs as much as one of 30 s. The formulas are those
of its convolutions and matrix products; `tests/plan/test_speech_cost.py` counts them on the network of transformers.
"""

from __future__ import annotations

import math

from xdub.config import Recipe
from xdub.geometry import FPS, SOUND_MARGIN
from xdub.precision import number_bytes

LAYERS = {384: 4, 512: 6, 768: 12, 1024: 24, 1280: 32}
"""Width of a published Whisper encoder -> number of its layers: tiny, base, small, medium, large."""
ROWS = 1500
"""Feature rows of one chunk."""
CHUNK_SECONDS = 30.0
"""Seconds of sound in one chunk."""
MELS = 80
"""Bands of the spectrogram (128 in large-v3, which adds less than a thousandth)."""


def whisper_layers(width: int) -> int:
    """Return the number of layers of an encoder of that width.

    A width that no published encoder has gets the layers of the next wider one.
    """
    wider = [layers for size, layers in LAYERS.items() if size >= width]
    return wider[0] if wider else LAYERS[max(LAYERS)]


def speech_flops(recipe: Recipe, frames: int) -> float:
    """Return the FLOPs to encode the sound of a window of ``frames`` frames and its margins; log-mel is free."""
    if recipe.audio.kind == "logmel":
        return 0.0
    chunks = math.ceil((frames + 2 * SOUND_MARGIN) / FPS / CHUNK_SECONDS)
    return chunks * _chunk_flops(recipe.audio.dim)


def speech_parameters(recipe: Recipe) -> int:
    """Return the number of the encoder's weights; log-mel has none."""
    if recipe.audio.kind == "logmel":
        return 0
    d = recipe.audio.dim
    layer = 4 * d * d + 3 * d + 8 * d * d + 5 * d + 4 * d
    convolutions = 3 * MELS * d + d + 3 * d * d + d
    return convolutions + ROWS * d + whisper_layers(d) * layer + 2 * d


def speech_bytes(recipe: Recipe) -> float:
    """Return the bytes of the encoder's fp32 weights on the GPU."""
    return number_bytes("fp32") * speech_parameters(recipe)


def _chunk_flops(width: int) -> float:
    """FLOPs of one chunk: two convolutions, of which the first has twice the rows, then the layers."""
    convolutions = 2 * 3 * width * ROWS * (2 * MELS + width)
    layer = 2 * ROWS * width * width * (4 + 8) + 4 * ROWS**2 * width
    return float(convolutions + whisper_layers(width) * layer)
