"""Sound whose time stamps run fast or slow follows them, as in a player."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from xdub.media import read_audio

RATE = 48000
CLICK = np.sin(2 * np.pi * np.arange(80) / 16).astype(np.float32)
"""A click at 16 kHz."""


def drifting(path: Path, ratio: float, seconds: float, codec: str = "aac", jitter: float = 0.0) -> Path:
    """Write sound with a click at every whole second of its time stamps, which last ``ratio`` times its samples."""
    samples = np.zeros(round(seconds * RATE), np.float32)
    for second in range(1, int(seconds * ratio)):
        begin = round(second * RATE / ratio)
        samples[begin : begin + 240] = 0.8 * np.sin(2 * np.pi * np.arange(240) / 48)
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        stream.codec_context.time_base = Fraction(1, RATE)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            packet.pts = packet.dts = round(packet.pts * ratio + rng.uniform(-jitter, jitter) * RATE)
            container.mux(packet)
    return path


def errors(path: Path, seconds: int, every: int = 1) -> np.ndarray:
    """Return by how many seconds each click is late, from the best correlation within half a second."""
    samples = np.pad(read_audio(path), (0, 16000))
    late = []
    for second in range(1, seconds, every):
        near = samples[second * 16000 - 8000 : second * 16000 + 8000]
        late.append((np.abs(np.correlate(near, CLICK, "valid")).argmax() - 8000) / 16000)
    return np.array(late)


@pytest.mark.parametrize("suffix", ["mka", "m4a"])
@pytest.mark.parametrize("ratio", [1.01, 0.99, 1.001])
def test_sound_follows_its_time_stamps(tmp_path, suffix, ratio):
    path = drifting(tmp_path / f"a.{suffix}", ratio, 20)
    assert np.abs(errors(path, int(20 * ratio))).max() < 0.002
    assert read_audio(path).size / 16000 == pytest.approx(20 * ratio, abs=0.05)


def test_the_drift_does_not_grow_over_minutes(tmp_path):
    assert np.abs(errors(drifting(tmp_path / "a.mka", 1.01, 200), 202, every=10)).max() < 0.002


def test_a_stretched_tone_has_no_clicks(tmp_path):
    path = tmp_path / "a.mka"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        tone = (10000 * np.sin(2 * np.pi * 440 * np.arange(10 * RATE) / RATE)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            packet.pts = packet.dts = round(packet.pts * 1.01)
            container.mux(packet)
    samples = read_audio(path)[1600:-1600]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size)))
    peak = spectrum.argmax()
    assert peak * 16000 / samples.size == pytest.approx(440 / 1.01, abs=0.5)
    spectrum[peak - 100 : peak + 100] = 0
    assert 20 * np.log10(spectrum.max() / np.abs(np.fft.rfft(samples)).max()) < -50


def test_jitter_of_time_stamps_changes_no_sample(tmp_path):
    steady, shaky = (
        read_audio(drifting(tmp_path / f"{n}.mka", 1.0, 10, jitter=jitter))
        for n, jitter in enumerate((0.0, 0.008))
    )
    size = min(steady.size, shaky.size)
    assert abs(steady.size - shaky.size) < 300
    assert np.array_equal(steady[200 : size - 400], shaky[200 : size - 400])
