"""Voice embeddings and voice activity: from true files only, and about the voice alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xdub.errors import UserError
from xdub.perception.voice import SIZE, VoiceEncoder, voiced_part
from xdub.perception.voice_activity import VoiceActivity
from xdub.render.speech import Voice, speak

LOW = Voice(pitch=100, tract=0.9, breath=0.1, pace=3.0, reach=1.0, tilt=-1.0)
HIGH = Voice(pitch=220, tract=1.15, breath=0.2, pace=3.5, reach=1.0, tilt=1.0)


def speech(voice: Voice, seed: int, frames: int = 100) -> np.ndarray:
    return speak(np.random.default_rng(seed), voice, frames).audio


@pytest.fixture(scope="module")
def encoder() -> VoiceEncoder:
    return VoiceEncoder.load()


def test_utterances_of_one_voice_are_more_alike_than_those_of_two(encoder):
    low, low_again, high = (encoder.embed(speech(v, n)) for n, v in enumerate((LOW, LOW, HIGH)))
    assert low @ low_again > 0.75 > low @ high + 0.1
    assert np.linalg.norm(low) == pytest.approx(1, abs=1e-4)


def test_pauses_and_loudness_do_not_change_a_voice(encoder):
    wave = speech(LOW, 3)
    paused = np.concatenate([wave, np.zeros(32_000, np.float32)])
    embeddings = [encoder.embed(one) for one in (wave, paused, 0.01 * wave)]
    assert embeddings[0] @ embeddings[1] > 0.99 and embeddings[0] @ embeddings[2] > 0.95


def test_silence_and_a_short_sound_have_no_voice(encoder):
    for wave in (np.zeros(0, np.float32), np.zeros(32_000, np.float32), speech(LOW, 0)[:5_000]):
        assert encoder.embed(wave).shape == (SIZE,) and np.isnan(encoder.embed(wave)).all()
    assert len(voiced_part(np.zeros(100, np.float32))) == 0


def test_activity_has_one_value_a_frame_and_follows_the_speech():
    activity = VoiceActivity.load()
    wave = np.concatenate([np.zeros(50 * 640, np.float32), speech(HIGH, 1, 50)])
    values = activity.probabilities(wave)
    assert values.shape == (100,) and values[:45].max() < 0.3 and np.median(values[55:]) > 0.7
    assert activity.probabilities(np.zeros(0, np.float32)).shape == (0,)


def test_files_of_other_content_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    for content in ({"model_state": {"lstm.weight": torch.zeros(2)}}, {"other": 1}, [1]):
        torch.save(content, path)
        with pytest.raises(UserError, match="weights.pt"):
            VoiceEncoder.load(path)
        with pytest.raises(UserError, match="weights.pt"):
            VoiceActivity.load(path)
