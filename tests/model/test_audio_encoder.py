"""Audio features: 50 rows a second, in step with the sound, independent of its loudness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub.model.audio_encoder import LogMelEncoder, WhisperEncoder


@settings(deadline=None, max_examples=20)
@given(samples=st.integers(0, 20_000))
def test_features_have_fifty_rows_a_second(samples):
    assert LogMelEncoder(16).encode(np.zeros(samples, np.float32)).shape == (max(1, round(samples / 320)), 16)


def test_a_burst_of_sound_shows_in_its_own_row():
    wav = np.random.default_rng(0).normal(0, 1e-3, 16_000).astype(np.float32)
    wav[320 * 30 : 320 * 31] += np.random.default_rng(1).normal(0, 0.3, 320)
    energy = LogMelEncoder(16).encode(wav).mean(1)
    assert energy.argmax() == 30


def test_features_do_not_depend_on_the_loudness_of_a_recording():
    wav = np.random.default_rng(0).normal(0, 0.05, 16_000).astype(np.float32)
    quiet = LogMelEncoder(16).encode(0.2 * wav)
    torch.testing.assert_close(quiet, LogMelEncoder(16).encode(wav), atol=1e-3, rtol=1e-3)


def test_silence_stays_silent():
    noise = np.random.default_rng(0).normal(0, 1e-5, 16_000).astype(np.float32)
    assert LogMelEncoder(16).encode(noise).max() < -0.5


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_the_whisper_backend_returns_fifty_rows_a_second_across_chunks(seconds):
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    config = WhisperConfig(
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_source_positions=50,
        vocab_size=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    extractor = WhisperFeatureExtractor(chunk_length=1)
    encoder = WhisperEncoder(WhisperModel(config).encoder, extractor).to("cpu")
    features = encoder.encode(
        np.random.default_rng(0).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)
    )
    assert features.shape == (50 * seconds, 16)
    assert torch.isfinite(features).all()
