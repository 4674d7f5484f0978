"""Sound: any file is read as mono float at one rate, aligned with the picture."""

from __future__ import annotations

import av
import numpy as np
import pytest

from xdub.errors import UserError
from xdub.media import read_audio


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("kind", ["int16", "float32", "stereo"])
def test_wavs_of_any_rate_and_type_become_16_khz(media, tmp_path, rate, kind):
    samples = media.tone(1.0, rate)
    if kind == "int16":
        samples = (samples * 32767).astype(np.int16)
    if kind == "stereo":
        samples = np.stack([samples, samples], axis=1)
    got = read_audio(media.wav("a.wav", samples, rate))
    expected = media.tone(1.0, 16000)
    assert got.dtype == np.float32 and got.shape == expected.shape
    assert np.abs(got - expected)[200:-200].max() < 0.01


def test_stereo_is_averaged_not_summed(media, tmp_path):
    both = np.stack([media.tone(0.5, 16000), media.tone(0.5, 16000, 310.0)], axis=1)
    got = read_audio(media.wav("a.wav", both, 16000))
    assert np.abs(got - both.mean(axis=1)).max() < 1e-4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_nan_or_infinite_are_refused(media, tmp_path, value):
    samples = media.tone(0.5, 16000)
    samples[100] = value
    with pytest.raises(UserError, match="a.wav: its sound holds samples that are not numbers"):
        read_audio(media.wav("a.wav", samples, 16000))


CODECS = [(".flac", "flac"), (".mp3", "libmp3lame"), (".ogg", "libopus")]


@pytest.mark.parametrize(("suffix", "codec"), CODECS)
def test_compressed_sound_is_read(media, tmp_path, suffix, codec):
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        samples = (media.tone(1.0, 48000)[None] * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    got = read_audio(path)
    assert abs(got.size - 16000) < 1300
    middle = got[4000:12000]
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.06)  # LAME scales by 0.95


def test_sound_that_starts_late_in_a_video_is_padded_to_the_picture(media):
    got = read_audio(media.video(audio=media.tone(0.5, 16000), audio_delay=0.25))
    onset = int(np.argmax(np.abs(got) > 0.1))
    assert abs(onset - 4000) < 80


def test_sound_before_a_picture_that_starts_late_is_cut(media):
    samples = np.concatenate([np.zeros(8000, np.float32), media.tone(0.5, 16000)])
    path = media.video("late.mkv", times=[0.3 + n / 25 for n in range(20)], audio=samples)
    got = read_audio(path)
    onset = int(np.argmax(np.abs(got) > 0.1))
    assert abs(onset - 3200) < 80


def test_a_video_without_sound_and_empty_sound_have_different_errors(media, tmp_path):
    with pytest.raises(UserError, match="no audio stream"):
        read_audio(media.video())
    with pytest.raises(UserError, match=r"zero length|empty|not a readable"):
        read_audio(media.wav("empty.wav", np.zeros(0, np.int16), 16000))
