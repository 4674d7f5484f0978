"""Speech and lips from one phone sequence: a formant synthesiser and matching ARKit curves.

With a synthesiser, sound and lips agree exactly, any amount of speech is free, and all code is this project's own (no
recordings, no third party's voice or licence). The result is recognisably speech-like, not intelligible English.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from xdub.geometry import FPS, SAMPLE_RATE
from xdub.render.phones import CLUSTERS, CODAS, ONSETS, PHONES, VOWELS, Phone

STEP = 80
"""Samples of a control step: 5 ms."""
WINDOW = 320
"""Samples of an analysis window: 20 ms."""
FFT = 512
"""Samples of a Fourier transform."""
LEAD = 1.0
"""Seconds of speech before and after the clip, so that a clip may begin in mid-word."""
CHANNELS = ("jaw", "funnel", "pucker", "stretch", "close", "bite", "tongue")
"""Fields of `Phone` that move the lips and the jaw."""


@dataclass(frozen=True)
class Voice:
    """The voice of one person."""

    pitch: float  # Hz
    tract: float  # factor on all formants; above 1 for short tracts (women)
    breath: float  # 0..1
    pace: float  # syllables per second
    reach: float  # size of lip movement, about 1
    tilt: float  # spectral tilt, dB per octave above 500 Hz


@dataclass(frozen=True)
class Speech:
    """Speech of F frames: audio [640 F] float32, and curves [F] float32 in 0..1 by ARKit unit."""

    audio: np.ndarray
    curves: dict[str, np.ndarray]
    phones: tuple[tuple[str, float], ...]  # name and start in seconds from the beginning of the clip


@dataclass(frozen=True)
class _Timed:
    phone: Phone
    start: float
    end: float
    stress: float


def draw_voice(rng: np.random.Generator, feminine: float) -> Voice:
    """Draw a voice whose pitch and tract suit the face (`feminine` 0..1)."""
    pitch = np.exp(np.log(105) + np.log(200 / 105) * feminine + rng.normal(0, 0.13))
    return Voice(
        pitch=float(np.clip(pitch, 85, 255)),
        tract=float(0.92 + 0.22 * feminine + rng.uniform(-0.05, 0.05)),
        breath=float(rng.uniform(0.02, 0.25)),
        pace=float(rng.uniform(2.5, 4.0)),
        reach=float(rng.uniform(0.95, 1.05)),
        tilt=float(rng.uniform(-1.5, 1.5)),
    )


def _sequence(rng: np.random.Generator, voice: Voice, seconds: float, pause_rate: float) -> list[_Timed]:
    """Draw syllables (onset, vowel, coda) and pauses until `seconds` are filled."""
    timed: list[_Timed] = []
    now = 0.0

    def append(name: str, stretch: float, stress: float) -> None:
        nonlocal now
        while name:
            phone = PHONES[name]
            length = phone.ms / 1000 * stretch * rng.uniform(0.88, 1.15)
            timed.append(_Timed(phone, now, now + length, stress))
            now += length
            name = phone.then

    until_pause = int(rng.integers(2, 8))
    while now < seconds:
        stress = float(rng.uniform(0.8, 1.1))
        begin = now
        pick = rng.uniform()
        onset = CLUSTERS[rng.integers(len(CLUSTERS))] if pick < 0.08 else (str(rng.choice(ONSETS)),)
        vowel, coda = str(rng.choice(VOWELS)), str(rng.choice(CODAS))
        natural = sum(_natural_ms(name) for name in (*onset, vowel, coda)) / 1000
        pace = np.clip(1.0 / (voice.pace * natural), 0.8, 1.6)
        for name in onset:
            append(name, 0.5 + 0.5 * pace, stress)
        append(vowel, pace * rng.uniform(0.9, 1.15), stress)
        append(coda, 0.5 + 0.5 * pace, stress)
        until_pause -= 1
        if until_pause <= 0 or rng.uniform() < 0.03:
            append("sil", rng.uniform(0.8, 2.6) * pause_rate, 1.0)
            until_pause = int(rng.integers(3, 10))
        assert now > begin
    return timed


def _natural_ms(name: str) -> float:
    """Return the length in ms of a phone with its second half."""
    total = 0.0
    while name:
        total += PHONES[name].ms
        name = PHONES[name].then
    return total


def _tracks(timed: list[_Timed], steps: int) -> dict[str, np.ndarray]:
    """Compute piecewise constant targets [steps] at 200 Hz."""
    names = (*CHANNELS, "weight", "f1", "f2", "f3", "voice", "noise", "centre", "width", "nasal", "stress")
    track = {name: np.zeros(steps) for name in names}
    track["centre"] += PHONES["sil"].band[0]
    track["width"] += PHONES["sil"].band[1]
    for item in timed:
        a, b = int(round(item.start * 200)), max(int(round(item.end * 200)), int(round(item.start * 200)) + 1)
        phone = item.phone
        for name in CHANNELS:
            track[name][a:b] = getattr(phone, name)
        for name, value in zip(("f1", "f2", "f3"), phone.formants, strict=True):
            track[name][a:b] = value
        track["weight"][a:b], track["stress"][a:b] = phone.weight, item.stress
        track["voice"][a:b], track["noise"][a:b], track["nasal"][a:b] = phone.voice, phone.noise, phone.nasal
        track["centre"][a:b], track["width"][a:b] = phone.band
    return track


def _blend(values: np.ndarray, weight: np.ndarray, sigma: float) -> np.ndarray:
    """Blend neighbours in proportion to their weights (coarticulation). `sigma` is in control steps."""
    return gaussian_filter1d(values * weight, sigma) / np.maximum(gaussian_filter1d(weight, sigma), 1e-6)


def _lips(track: dict[str, np.ndarray], voice: Voice) -> dict[str, np.ndarray]:
    """Compute ARKit curves at 200 Hz.

    Lips meet for p, b, m and in silence; everything else blends over about 100 ms.
    """
    weight = track["weight"]
    jaw = _blend(track["jaw"] * track["stress"] * voice.reach, weight, 7.0)
    wide = {name: _blend(track[name], weight, 8.0) for name in ("funnel", "pucker", "stretch", "tongue")}
    close = np.clip(_blend(track["close"], weight, 4.5) * 1.35, 0, 1)
    bite = np.clip(_blend(track["bite"], weight, 4.5) * 1.25, 0, 1) * (1 - close)
    shut = np.clip(close / 0.55, 0, 1)
    shut = shut * shut * (3 - 2 * shut)
    jaw_open = np.clip(jaw * (1 - 0.72 * shut) * (1 - 0.55 * bite), 0, 1)
    press = np.clip((close - 0.5) / 0.5, 0, 1)
    free = 1 - shut
    curves = {
        "jawOpen": jaw_open,
        "mouthClose": jaw_open * shut,
        "mouthPressLeft": 0.45 * press,
        "mouthPressRight": 0.45 * press,
        "mouthRollLower": np.clip(0.25 * press + 0.75 * bite, 0, 1),
        "mouthRollUpper": 0.2 * press,
        "mouthFunnel": wide["funnel"] * (1 - 0.8 * shut) * (1 - 0.6 * bite),
        "mouthPucker": wide["pucker"] * (1 - 0.5 * shut),
        "mouthStretchLeft": 0.75 * wide["stretch"],
        "mouthStretchRight": 0.75 * wide["stretch"],
        "mouthUpperUpLeft": np.clip(0.30 * bite + 0.22 * wide["stretch"] + 0.30 * jaw, 0, 1) * free,
        "mouthUpperUpRight": np.clip(0.30 * bite + 0.22 * wide["stretch"] + 0.30 * jaw, 0, 1) * free,
        "mouthLowerDownLeft": np.clip(0.55 * wide["stretch"] + 0.2 * jaw - bite, 0, 1) * free,
        "mouthLowerDownRight": np.clip(0.55 * wide["stretch"] + 0.2 * jaw - bite, 0, 1) * free,
        "tongueOut": 0.30 * wide["tongue"] * free,
    }
    return curves


def _sound(track: dict[str, np.ndarray], voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """Synthesise [steps * STEP] samples from [steps] controls: source and filter in the short-time spectrum."""
    steps = len(track["f1"])
    count = steps * STEP
    drift = gaussian_filter1d(rng.normal(size=steps), 40) * np.sqrt(2 * np.sqrt(np.pi) * 40)
    jitter = gaussian_filter1d(rng.normal(size=steps), 2)
    f0 = voice.pitch * np.exp2((1.6 * drift + 0.35 * jitter + 2.5 * (track["stress"] - 0.95) * 4) / 12)
    f0 = gaussian_filter1d(f0, 5)
    phase = np.cumsum(np.repeat(f0, STEP) / SAMPLE_RATE) % 1.0
    opened = np.clip(phase / 0.62, 0, 1)
    # The derivative of a smooth glottal flow.
    pulse = np.where(phase < 0.62, 2 * opened - 3 * opened**2, 0.0)
    hiss = rng.normal(size=count)
    source = pulse + voice.breath * 0.35 * hiss * (0.3 + 0.7 * opened)

    bins = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)
    smooth = {name: _blend(track[name], np.maximum(track["weight"], 0.3), 3.5) for name in ("f1", "f2", "f3")}
    formants = [smooth["f1"], smooth["f2"], smooth["f3"], np.full(steps, 3500.0), np.full(steps, 4500.0)]
    response = np.ones((steps, len(bins)))
    for centre, width in zip(formants, (70.0, 90.0, 140.0, 220.0, 300.0), strict=True):
        f = (centre * voice.tract)[:, None]
        b = width + 0.03 * f
        response *= f * f / np.sqrt((bins**2 - f * f) ** 2 + (b * bins) ** 2 + 1.0)
    nasal = gaussian_filter1d(track["nasal"], 2)[:, None]
    response *= 1 - nasal * (0.75 * np.clip((bins - 500) / 800, 0, 1))
    response *= 10 ** (voice.tilt * np.log2(np.maximum(bins, 500) / 500) / 20)
    centre, width = track["centre"][:, None], track["width"][:, None]
    colour = np.exp(-0.5 * ((bins - centre) / (0.5 * width)) ** 2)
    loud = gaussian_filter1d(track["voice"] * track["stress"] ** 1.5, 2.0)[:, None]
    rough = gaussian_filter1d(track["noise"] * track["stress"], 1.2)[:, None]

    starts = np.arange(steps) * STEP
    samples = starts[:, None] + np.arange(WINDOW)[None]
    window = np.hanning(WINDOW + 1)[:-1]
    pad = (0, WINDOW)
    voiced = np.fft.rfft(np.pad(source, pad)[samples] * window, FFT)
    rustle = np.fft.rfft(np.pad(rng.normal(size=count), pad)[samples] * window, FFT)
    pieces = np.fft.irfft(voiced * response * loud + 1.6 * rustle * colour * rough, FFT)
    out = np.zeros(count + FFT)
    # Overlap-add, one residue of the window at a time.
    for first in range(0, FFT, STEP):
        piece = np.zeros((steps, STEP))
        part = pieces[:, first : first + STEP]
        piece[:, : part.shape[1]] = part
        out[first : first + count] += piece.reshape(-1)
    return out[WINDOW // 2 : WINDOW // 2 + count]


def _room(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a short weak reverberation and quiet noise, and set the level near -20 dB."""
    tail = int(SAMPLE_RATE * rng.uniform(0.03, 0.09))
    echo = rng.normal(size=tail) * np.exp(-5 * np.arange(tail) / tail) * rng.uniform(0.0, 0.04)
    echo[0] = 1.0
    sound = np.convolve(sound, echo)[: len(sound)]
    level = np.sqrt(np.mean(sound**2)) + 1e-9
    sound = sound / level * rng.uniform(0.07, 0.12)
    return sound + rng.normal(size=len(sound)) * 10 ** rng.uniform(-3.6, -2.9)


def speak(rng: np.random.Generator, voice: Voice, frames: int, *, pause_rate: float = 1.0) -> Speech:
    """Draw random speech of `frames` video frames. Frame n shows the lips at the middle of its 40 ms of sound."""
    seconds = frames / FPS
    timed = _sequence(rng, voice, seconds + 2 * LEAD, pause_rate)
    steps = int(round(timed[-1].end * 200)) + 1
    track = _tracks(timed, steps)
    sound = _room(_sound(track, voice, rng), rng)
    first = int(LEAD * SAMPLE_RATE)
    audio = np.clip(sound[first : first + frames * SAMPLE_RATE // FPS], -1, 1).astype(np.float32)
    middle = (LEAD + (np.arange(frames) + 0.5) / FPS) * 200
    grid = np.arange(steps) + 0.5
    curves = {
        name: np.interp(middle, grid, values).astype(np.float32)
        for name, values in _lips(track, voice).items()
    }
    phones = tuple((t.phone.name, t.start - LEAD) for t in timed if t.end > LEAD and t.start < LEAD + seconds)
    return Speech(audio, curves, phones)
