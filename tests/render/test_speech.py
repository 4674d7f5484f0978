"""Tests of speech: sound and lips come from one phone sequence and agree with it and with each other."""

from __future__ import annotations

import numpy as np
import pytest

from xdub.geometry import FPS, SAMPLE_RATE
from xdub.render.person import draw_person
from xdub.render.phones import PHONES, VOWELS
from xdub.render.speech import draw_voice, speak
from xdub.seeding import rng


def _speech(number: int, frames: int = 250):
    return speak(rng("test", "speech", number), draw_voice(rng("test", "voice", number), number % 2), frames)


def test_a_frame_has_640_samples_of_audio_and_one_value_of_each_curve():
    speech = _speech(0, 45)
    assert speech.audio.shape == (45 * 640,) and speech.audio.dtype == np.float32
    assert all(curve.shape == (45,) for curve in speech.curves.values())
    assert np.isfinite(speech.audio).all() and np.abs(speech.audio).max() <= 1


@pytest.mark.parametrize("number", range(4))
def test_curves_are_smooth_and_stay_within_0_and_1(number: int):
    for name, curve in _speech(number).curves.items():
        assert curve.min() >= 0 and curve.max() <= 1, name
        # Lips need about 80 ms from one end to the other.
        assert np.abs(np.diff(curve)).max() < 0.75, name


def test_equal_seeds_give_equal_speech_and_other_seeds_other_speech():
    first, again, other = _speech(1), _speech(1), _speech(2)
    assert np.array_equal(first.audio, again.audio)
    assert not np.array_equal(first.audio, other.audio)


def _jaw_at(speech, names: tuple[str, ...]) -> list[float]:
    """Return the jaw opening in the middle of each phone of the names."""
    ends = [start for _, start in speech.phones[1:]]
    curve = speech.curves["jawOpen"]
    jaws = []
    for (name, start), end in zip(speech.phones, ends, strict=False):
        if name in names and start > 0:
            frame = int((start + end) / 2 * FPS)
            jaws.append(float(curve[min(frame, len(curve) - 1)]))
    return jaws


def test_jaw_opening_of_vowels_follows_their_first_formant():
    formants, jaws = [], []
    for number in range(6):
        speech = _speech(number)
        for name in VOWELS:
            for jaw in _jaw_at(speech, (name,)):
                formants.append(PHONES[name].formants[0])
                jaws.append(jaw)
    assert len(jaws) > 50
    assert np.corrcoef(formants, jaws)[0, 1] > 0.7


def test_lips_are_shut_in_silence_and_for_p_b_m():
    speech = [_speech(number) for number in range(4)]
    quiet = [jaw for s in speech for jaw in _jaw_at(s, ("sil",))]
    vowels = [jaw for s in speech for jaw in _jaw_at(s, ("aa", "ae", "ah"))]
    assert np.mean(quiet) < 0.05 and np.mean(vowels) > 0.4
    shut = [s.curves["mouthPressLeft"] for s in speech]
    assert max(curve.max() for curve in shut) > 0.2


def test_silence_is_much_quieter_than_speech():
    speech = _speech(3)
    frames = speech.audio.reshape(-1, 640)
    level = 20 * np.log10(frames.std(1) + 1e-9)
    spans = {}
    ends = [start for _, start in speech.phones[1:]]
    for (name, start), end in zip(speech.phones, ends, strict=False):
        spans.setdefault(name, []).append((start, end))
    quiet = [level[int(a * FPS) + 2 : int(b * FPS) - 1] for a, b in spans["sil"] if a > 0 and b - a > 0.2]
    assert np.mean(np.concatenate(quiet)) < np.percentile(level, 80) - 20


def test_voices_differ_in_pitch_within_human_range():
    voices = [draw_person(0, number).voice for number in range(60)]
    pitch = np.array([voice.pitch for voice in voices])
    assert pitch.min() >= 85 and pitch.max() <= 255 and pitch.std() > 25


def test_the_pitch_of_the_sound_is_the_voice_s_pitch():
    voice = draw_voice(rng("test", "pitch"), 0.0)
    speech = speak(rng("test", "pitch", 1), voice, 250)
    frames = speech.audio[: 240 * 640].reshape(-1, 1280)
    loud = frames[frames.std(1) > np.percentile(frames.std(1), 60)]
    estimates = []
    for frame in loud:
        auto = np.fft.irfft(np.abs(np.fft.rfft(frame * np.hanning(1280), 4096)) ** 2)
        lags = np.arange(SAMPLE_RATE // 300, SAMPLE_RATE // 70)
        estimates.append(SAMPLE_RATE / lags[np.argmax(auto[lags])])
    assert abs(np.log2(np.median(estimates) / voice.pitch)) < 0.35
