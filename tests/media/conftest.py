"""Small media files, encoded by the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from xdub.media import read_video


@contextmanager
def own_scheduling() -> Iterator[None]:
    """Restore the scheduling afterwards, because SVT-AV1's encoder makes a process of root real-time."""
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)


class MediaFiles:
    """Encoders for test files below one folder, and the pictures and sounds in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def ramp(n: int, width: int = 64, height: int = 48) -> np.ndarray:
        """Return a frame whose grey level encodes its number (mod 36); a black left third shows orientation."""
        frame = np.full((height, width, 3), 6 * (n % 36) + 20, np.uint8)
        frame[:, : width // 3] = 0
        return frame

    def ramps(self, count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
        return [self.ramp(n, width, height) for n in range(count)]

    @staticmethod
    def number(frame: np.ndarray) -> int:
        """Return the number of a frame of ``ramp``, read in the middle of the lighter part."""
        height, width = frame.shape[:2]
        patch = frame[height // 3 : 2 * height // 3, width // 2 : -2]
        return round((float(patch.mean()) - 20) / 6)

    def numbers(self, path: Path, **options) -> list[int]:
        """Return the numbers of the frames that ``read_video`` yields, in order."""
        return [self.number(frame) for frame in read_video(path, **options)]

    @staticmethod
    def tone(seconds: float, rate: int, hertz: float = 200.0) -> np.ndarray:
        """Return a sine of amplitude 0.5, float32."""
        return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)

    def wav(self, name: str, samples: np.ndarray, rate: int) -> Path:
        """Write int16 or float32 samples [N] or [N, channels]."""
        from scipy.io import wavfile

        wavfile.write(self.folder / name, rate, samples)
        return self.folder / name

    def video(
        self,
        name: str = "v.mp4",
        *,
        times: list[float] | None = None,
        size: tuple[int, int] = (64, 48),
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        rotation: int = 0,
        audio: np.ndarray | None = None,
        audio_rate: int = 16000,
        audio_delay: float = 0.0,
        fps: int = 25,
    ) -> Path:
        """Write ramps shown at ``times`` (seconds; 25 frames by default)."""
        path = self.folder / name
        times = [n / fps for n in range(25)] if times is None else times
        with own_scheduling(), av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=fps)
            stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
            stream.codec_context.time_base = Fraction(1, 1000)
            if rotation:
                stream.set_display_rotation(rotation)
            sound = container.add_stream("aac", rate=audio_rate, layout="mono") if audio is not None else None
            for n, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(self.ramp(n, *size), format="rgb24")
                frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if sound is not None:
                samples = audio[None].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                frame.sample_rate, frame.time_base = audio_rate, Fraction(1, audio_rate)
                frame.pts = round(audio_delay * audio_rate)
                container.mux(sound.encode(frame))
                container.mux(sound.encode(None))
        return path


@pytest.fixture
def media(tmp_path: Path) -> MediaFiles:
    return MediaFiles(tmp_path)
