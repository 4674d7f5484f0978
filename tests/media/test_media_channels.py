"""Sound with several tracks or channels: the track of a player is read, and no speech is lost."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from xdub.errors import UserError
from xdub.media import probe, read_audio, read_video

RATE = 16000


@pytest.fixture
def speech() -> np.ndarray:
    """Return two seconds of a sound with the band and the pauses of speech."""
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.normal(size=2 * RATE))
    hertz = np.fft.rfftfreq(2 * RATE, 1 / RATE)
    spectrum[(hertz < 120) | (hertz > 3000)] = 0
    voice = np.fft.irfft(spectrum / np.maximum(hertz, 120))
    syllables = np.maximum(0, np.sin(2 * np.pi * 3 * np.arange(2 * RATE) / RATE))
    return (0.4 * voice * syllables / np.abs(voice).max()).astype(np.float32)


def least_gain(got: np.ndarray, speech: np.ndarray) -> float:
    """Return the level in dB of the speech in a mix, in the worst of its loud tenths of a second."""
    gains = []
    for begin in range(0, speech.size, RATE // 10):
        true, mixed = speech[begin : begin + RATE // 10], got[begin : begin + RATE // 10]
        if true.std() > speech.std():
            gains.append(abs(float(mixed @ true)) / float(true @ true))
    return 20 * np.log10(min(gains) + 1e-9)


def noise(speech: np.ndarray, level: float, seed: int) -> np.ndarray:
    """Return noise with a level in dB relative to the speech."""
    sound = np.random.default_rng(seed).normal(size=speech.size) * speech.std()
    return (sound * 10 ** (level / 20)).astype(np.float32)


@pytest.mark.parametrize("second", [-1.0, -0.8, -0.4, 0.0, 1.0])
def test_two_copies_keep_the_speech_if_one_is_inverted_or_empty(media, speech, second):
    both = np.stack([speech, np.float32(second) * speech], axis=1)
    assert least_gain(read_audio(media.wav("a.wav", both, RATE)), speech) > -4


@pytest.mark.parametrize("part", [slice(0, RATE), slice(RATE, None), slice(RATE // 2, RATE)])
def test_a_copy_that_is_inverted_for_a_while_keeps_the_speech(media, speech, part):
    other = speech.copy()
    other[part] *= -1
    got = read_audio(media.wav("a.wav", np.stack([speech, other], axis=1), RATE))
    assert least_gain(got, speech) > -6


def test_inverted_copies_with_hiss_keep_the_speech(media, speech):
    both = np.stack([speech + noise(speech, -20, 1), -speech + noise(speech, -20, 2)], axis=1)
    assert least_gain(read_audio(media.wav("a.wav", both, RATE)), speech) > -1


def test_ordinary_stereo_is_the_mean_to_the_bit(media, speech):
    both = np.stack(
        [speech + noise(speech, -10, 1), np.float32(0.3) * speech + noise(speech, -20, 2)], axis=1
    )
    got = read_audio(media.wav("a.wav", both, RATE))
    assert np.array_equal(got, both.mean(axis=1, dtype=np.float32))


@pytest.mark.parametrize("channels", [3, 4, 6, 8, 11, 22, 24])
def test_speech_in_one_of_many_channels_keeps_its_level(media, speech, channels):
    for channel in {0, 2, channels - 1}:
        samples = np.zeros((speech.size, channels), np.float32)
        samples[:, channel] = speech
        assert least_gain(read_audio(media.wav("a.wav", samples, RATE)), speech) > -1
    samples[:] = speech[:, None] * (1 - 2 * (np.arange(channels) % 2))
    assert least_gain(read_audio(media.wav("a.wav", samples, RATE)), speech) > -1


@pytest.mark.parametrize("layout", ["5.1", "7.1"])
def test_dialogue_in_the_centre_is_heard_over_music(tmp_path, speech, layout):
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    music = [noise(speech, -3, n) for n in range(len(names))]
    samples = np.stack([speech if name == "FC" else music[n] for n, name in enumerate(names)])
    path = tmp_path / "film.mka"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout=layout)
        whole = np.ascontiguousarray((samples.T * 30000).astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout=layout)
        frame.sample_rate = RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert least_gain(read_audio(path), speech * 30000 / 32768) > -6


@pytest.mark.parametrize(("hertz", "channels"), [(1, 1), (2**31 - 1, 1), (RATE, 255)])
def test_headers_that_cannot_be_right_are_refused(media, speech, hertz, channels):
    path = media.wav("a.wav", speech, RATE)
    data = bytearray(path.read_bytes())
    data[22:24], data[24:28] = channels.to_bytes(2, "little"), hertz.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"not plausible|are not supported"):
        read_audio(path)


def tracks(path: Path, sounds: list[tuple[np.ndarray, Disposition]], grey: tuple[int, ...] = (50,)) -> Path:
    """Write a video with a stream for each grey level, the last flagged as default, and the sound tracks."""
    with av.open(str(path), "w") as container:
        videos = [container.add_stream("mpeg4", rate=25) for _ in grey]
        for video in videos:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            video.disposition = Disposition.default if video is videos[-1] else Disposition(0)
        streams = []
        for _, disposition in sounds:
            stream = container.add_stream("aac", rate=RATE, layout="mono")
            stream.disposition = disposition
            streams.append(stream)
        packets = []
        for level, video in zip(grey, videos, strict=True):
            for n in range(50):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
                frame.pts, frame.time_base = n, Fraction(1, 25)
                packets += video.encode(frame)
            packets += video.encode(None)
        for (samples, _), stream in zip(sounds, streams, strict=True):
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            packets += [*stream.encode(frame), *stream.encode(None)]
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize("first", [Disposition(0), Disposition.visual_impaired, Disposition.comment])
def test_the_track_that_a_player_chooses_is_read(tmp_path, speech, suffix, first):
    silent = np.zeros_like(speech)
    path = tracks(tmp_path / f"a.{suffix}", [(silent, first), (speech, Disposition.default)])
    assert probe(path).has_audio
    assert least_gain(read_audio(path), speech) > -2


def test_the_first_track_is_read_if_none_or_all_are_flagged(tmp_path, speech):
    for flag in (Disposition(0), Disposition.default):
        path = tracks(tmp_path / "a.mkv", [(speech, flag), (np.zeros_like(speech), flag)])
        assert least_gain(read_audio(path), speech) > -2


def test_a_commentary_does_not_hide_the_sound_of_the_film(tmp_path, speech):
    path = tracks(tmp_path / "a.mkv", [(0 * speech, Disposition.comment), (speech, Disposition(0))])
    assert least_gain(read_audio(path), speech) > -2


def test_the_picture_that_a_player_chooses_is_read(tmp_path, speech):
    path = tracks(tmp_path / "a.mkv", [(speech, Disposition.default)], grey=(20, 200))
    assert next(read_video(path)).mean() > 150
