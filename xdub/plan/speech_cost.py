"""Cost of the frozen audio encoder, which hears every window of video once, or a whole recording once.

Whisper's encoder pads any sound to 30 s, so a window of one second costs as much as one of 30 s. The formulas are those
of its convolutions and matrix products; `tests/plan/test_speech_cost.py` counts them on the network of transformers.
"""

from __future__ import annotations

import math

from xdub.config import Recipe
from xdub.config.network_sections import HUBERT_STATES
from xdub.config.speech_parts import JOINED
from xdub.geometry import FPS, SAMPLES_PER_FRAME, SOUND_MARGIN
from xdub.plan.wave_cost import ONE_PASS, STEP, WaveNetwork, hubert_large, wav2vec2_base
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
    return _sound_flops(recipe, frames + 2 * SOUND_MARGIN)


def window_speech_flops(recipe: Recipe, frames: int, track: int, windows: int) -> float:
    """Return the mean FLOPs of one of the ``windows`` windows of a pair or a dub of ``track`` frames.

    A network with `model.speech=published` cuts its windows from the features of the whole sound, encoded once.
    """
    if recipe.model.speech == "published":
        return _sound_flops(recipe, track) / windows
    return speech_flops(recipe, frames)


def speech_parameters(recipe: Recipe) -> int:
    """Return the number of the encoder's weights; log-mel has none."""
    if recipe.audio.kind == "logmel":
        return 0
    whisper, wave = _networks(recipe)
    return (0 if whisper is None else _whisper_parameters(whisper, recipe)) + (
        0 if wave is None else wave.parameters()
    )


def speech_working_bytes(recipe: Recipe, track: int) -> float:
    """Return the bytes that wav2vec2 or HuBERT needs beside its weights to encode the sound of ``track`` frames."""
    _, wave = _networks(recipe)
    return 0.0 if wave is None else wave.working_bytes(min(track * SAMPLES_PER_FRAME, ONE_PASS))


def speech_bytes(recipe: Recipe) -> float:
    """Return the bytes of the encoder's fp32 weights on the GPU."""
    return number_bytes("fp32") * speech_parameters(recipe)


def _networks(recipe: Recipe) -> tuple[int | None, WaveNetwork | None]:
    """Return the width of Whisper, and the network that hears the wave, of an audio encoder."""
    kind, dim = recipe.audio.kind, recipe.audio.dim
    if kind == "hubert":
        return None, hubert_large(dim // len(HUBERT_STATES))
    if kind == JOINED:
        # The widths of both are known as their sum only, in the published ratio.
        whisper = round(dim * 1280 / 2048)
        return whisper, wav2vec2_base(dim - whisper)
    return (dim if kind == "whisper" else None), None


def _sound_flops(recipe: Recipe, frames: int) -> float:
    """Return the FLOPs to encode the sound of ``frames`` frames in one go."""
    whisper, wave = _networks(recipe)
    total = 0.0
    if whisper is not None:
        total += math.ceil(frames / FPS / CHUNK_SECONDS) * _chunk_flops(whisper)
    if wave is not None:
        samples = frames * SAMPLES_PER_FRAME
        later = max(0.0, samples - ONE_PASS) / STEP
        total += wave.flops(min(samples, ONE_PASS)) + later * wave.flops(ONE_PASS)
    return total


def _whisper_parameters(d: int, recipe: Recipe) -> int:
    layer = 4 * d * d + 3 * d + 8 * d * d + 5 * d + 4 * d
    convolutions = 3 * MELS * d + d + 3 * d * d + d
    # The published editor reads the states before the last norm.
    last = 0 if recipe.audio.kind == JOINED else 2 * d
    return convolutions + ROWS * d + whisper_layers(d) * layer + last


def _chunk_flops(width: int) -> float:
    """FLOPs of one chunk: two convolutions, of which the first has twice the rows, then the layers."""
    convolutions = 2 * 3 * width * ROWS * (2 * MELS + width)
    layer = 2 * ROWS * width * width * (4 + 8) + 4 * ROWS**2 * width
    return float(convolutions + whisper_layers(width) * layer)
