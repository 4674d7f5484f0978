"""The same window of a recording has the same speech features in training, in pairs and in a dub."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder as Network

from xdub.data.clip import Clip
from xdub.data.latents import encode_batch, window_features
from xdub.data.samples import collate
from xdub.data.sound import surrounded
from xdub.data.testing import PatchCodec, make_clip
from xdub.data.windows import cut_window
from xdub.dub.segments import Segment
from xdub.dub.tracks import Joiner
from xdub.geometry import SAMPLES_PER_FRAME
from xdub.model.audio_encoder import AudioEncoder, LogMelEncoder, WhisperEncoder
from xdub.pairs.audio_choice import cut_audio
from xdub.speech_windows import speech_windows

WINDOW, CLIP, RECORDING = 9, 45, 1000
"""Frames of a window, of a clip and of a recording of 40 s, which is longer than one input of Whisper."""


def whisper() -> WhisperEncoder:
    """Return a random Whisper of two narrow layers, with inputs of 30 s."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
        network = Network(WhisperConfig(**sizes))
        # Random networks hardly attend; sharper scores let distant sound matter, as in a trained network.
        for layer in network.layers:
            layer.self_attn.q_proj.weight.data *= 30
    return WhisperEncoder(network, WhisperFeatureExtractor())


def recording() -> np.ndarray:
    """Return 40 s of noise whose loudness changes by 20 dB, with a pause."""
    rng = np.random.default_rng(0)
    time = np.arange(RECORDING * SAMPLES_PER_FRAME) / 16_000
    level = 10 ** (-1.5 + 0.5 * np.sin(time) + 0.2 * np.sin(7 * time)) * (np.abs(time - 20) > 0.7)
    return (level * rng.normal(0, 0.3, len(time))).astype(np.float32)


def clip_of(sound: np.ndarray, start: int) -> Clip:
    """Return the clip of a recording that begins at a frame, with the second before and after it."""
    begin, end = start * SAMPLES_PER_FRAME, (start + CLIP) * SAMPLES_PER_FRAME
    before, after = sound[max(0, begin - 16_000) : begin], sound[end : end + 16_000]
    return make_clip(
        1,
        num_frames=CLIP,
        audio=sound[begin:end],
        sound_before=before if len(before) else None,
        sound_after=after if len(after) else None,
    )


def in_training(encoder: AudioEncoder, clip: Clip, start: int) -> Tensor:
    draws = (np.random.default_rng(seed) for seed in range(10_000))
    cuts = (
        cut_window(clip, phase="generator", window=WINDOW, geometry=PatchCodec.geometry, rng=d) for d in draws
    )
    sample = next(sample for sample in cuts if sample["start"] == start)
    batch = collate([sample | {"epoch": 0, "position": 0, "bad": {}}])
    return encode_batch(batch, PatchCodec(), encoder, "cpu")["audio"][0]


def in_dubbing(encoder: AudioEncoder, sound: np.ndarray, start: int, *, first: int = 0) -> Tensor:
    joiner = Joiner(CLIP, sound, (0,), window=WINDOW, motion=1, first_frame=first)
    frames = np.zeros((WINDOW, 8, 8, 3), np.uint8)
    sound = joiner.window(Segment(0, start, 0, start, start + WINDOW), frames).sound
    return window_features(encoder, sound, speech_windows("frames", PatchCodec.geometry))


def difference(one: Tensor, other: Tensor) -> float:
    """Return the RMS of the difference relative to that of the features."""
    return float((one - other).square().mean().sqrt() / other.square().mean().sqrt())


@pytest.mark.parametrize("make", [lambda: LogMelEncoder(80), whisper], ids=["log-mel", "whisper"])
def test_a_window_hears_the_same_in_training_pairs_and_dubs(make: Callable[[], AudioEncoder]) -> None:
    """In the middle and at both ends of a clip, at both ends of a recording, and across the edge of Whisper's 30 s."""
    encoder, sound = make(), recording()
    whole = surrounded(sound)
    # First frame of the clip, and of the window in the clip.
    places = [(300, 18), (300, 0), (300, CLIP - WINDOW), (0, 0), (RECORDING - CLIP, CLIP - WINDOW), (730, 15)]
    for begin, start in places:
        clip = clip_of(sound, begin)
        trained = in_training(encoder, clip, start)
        dubbed = in_dubbing(encoder, whole, start, first=begin)
        paired = in_dubbing(encoder, cut_audio(clip.sound, 0, CLIP), start)
        assert trained.shape == (2 * WINDOW + 8, encoder.dim)
        assert max(difference(trained, dubbed), difference(paired, dubbed)) < 1e-6, (begin, start)


def test_long_sound_is_encoded_in_inputs_that_overlap_by_two_seconds() -> None:
    encoder, sound = whisper(), recording()
    rows = encoder.encode(sound)
    assert rows.shape == (2 * RECORDING, 16)
    # Rows near the edge of the first input equal those of an input around them, but for what is more than 1 s away.
    first = encoder.encode(sound[: 1500 * 320])
    last = encoder.encode(sound[-1500 * 320 :])
    assert torch.equal(rows[:1450], first[:1450]) and torch.equal(rows[1450:], last[950:])
