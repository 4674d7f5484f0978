"""Films whose pictures and sound state the time, so that their true times are known after any encoding.

The upper part of each picture is white up to the share of ``PERIOD`` that has passed, the lower part is white during a
flash, and a beep begins with the flash.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from xdub.media.audio import read_audio
from xdub.media.reader import read_video

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame

PERIOD = 4.0
"""Seconds after which the pictures repeat."""
FLASH, FLASH_LENGTH = 1.2, 0.2
"""Time of the flash and of the beep, and the length of both, in seconds."""
TONE = 1600.0
"""Frequency of the beep in Hz."""


@dataclass(frozen=True, kw_only=True)
class TestFilm:
    """Settings of a film; times are in seconds."""

    __test__ = False

    seconds: float = 2.4
    """Length of the picture."""
    fps: Fraction | float = 25
    """Rate of the pictures, where ``times`` does not state them."""
    times: Sequence[float] | None = None
    """Time of each picture; None stands for a constant rate."""
    start: float = 0.0
    """Seconds by which all time stamps are late."""
    sound: tuple[float, float] | None = (0.0, 2.4)
    """Begin and end of the sound; None for a film without sound."""
    size: tuple[int, int] = (160, 96)
    """Width and height as stored."""
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    audio_codec: str = "aac"
    audio_rate: int = 48000
    options: dict[str, str] = field(default_factory=dict)
    """Options of the video encoder."""
    header: dict[str, str] = field(default_factory=dict)
    """Options of the container."""
    fields: str = ""
    """"top" or "bottom": the field that comes first in interlaced pictures; empty for progressive ones."""
    matrix: int = 0
    """FFmpeg's number of the colour matrix that encodes and tags the pictures; 0 leaves them untagged."""
    full_range: bool = False
    """True: the pictures use and state the full range."""

    def moments(self) -> list[float]:
        """Return the times of the pictures in seconds."""
        if self.times is not None:
            return list(self.times)
        return [n / float(self.fps) for n in range(round(self.seconds * float(self.fps)))]

    def picture(self, time: float) -> np.ndarray:
        """Return the picture uint8 [H, W, 3] at a time."""
        width, height = self.size
        edge = np.clip(width * (time % PERIOD) / PERIOD - np.arange(width), 0, 1)
        picture = np.zeros((height, width, 3), np.uint8)
        picture[: height // 2] = np.rint(255 * edge)[None, :, None]
        picture[height // 2 :] = 255 if -1e-6 <= time - FLASH < FLASH_LENGTH - 1e-6 else 0
        return picture

    def samples(self) -> np.ndarray:
        """Return the sound float32 [N] at ``audio_rate``."""
        begin, end = self.sound or (0.0, 0.0)
        time = begin + np.arange(round((end - begin) * self.audio_rate)) / self.audio_rate
        on = (time >= FLASH) & (time < FLASH + FLASH_LENGTH)
        return (0.8 * on * np.sin(2 * np.pi * TONE * (time - FLASH))).astype(np.float32)


@dataclass(frozen=True)
class Timing:
    """Times that were read from a test film."""

    frames: np.ndarray
    """float64 [F], the time that each frame shows, in seconds modulo `PERIOD`."""
    flash: float
    """Time of the first frame with the flash, nan without one."""
    beep: float
    """Time at which the beep begins, nan without one."""
    sound: float
    """Length of the sound in seconds."""


def write_test_film(path: Path, film: TestFilm | None = None) -> Path:
    """Encode a film, picture and sound interleaved by time."""
    import av

    film = film or TestFilm()
    with av.open(str(path), "w", options=film.header) as container:
        packets = list(_pictures(container, film))
        if film.sound is not None:
            packets += _sound(container, film)
        # All streams exist before the first packet is written.
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * (packet.time_base or 0)):
            container.mux(packet)
    return path


def _pictures(container: OutputContainer, film: TestFilm) -> Iterator[Packet[Any]]:
    """Yield the encoded pictures of a film."""
    import av
    from av.video.reformatter import Interpolation
    from av.video.stream import VideoStream

    rate = Fraction(film.fps)
    video = cast("VideoStream", container.add_stream(film.codec, rate=rate, options=film.options))
    video.width, video.height, video.pix_fmt = *film.size, film.pixel_format
    context = video.codec_context
    # The pictures of MPEG-2 and MPEG-4 are counted.
    base = 1 / rate if film.codec in {"mpeg2video", "mpeg4"} else Fraction(1, 90000)
    context.time_base = base
    if film.matrix:
        context.colorspace = context.color_primaries = context.color_trc = film.matrix
    if film.full_range:
        context.color_range = 2
    for time in film.moments():
        picture = film.picture(time)
        if film.fields:
            rows = slice(1, None, 2) if film.fields == "top" else slice(0, None, 2)
            picture[rows] = film.picture(time + 0.5 / float(film.fps))[rows]
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
            format=film.pixel_format,
            dst_colorspace="ITU709" if film.matrix == 1 else "ITU601",
            src_color_range="JPEG",
            dst_color_range="JPEG" if film.full_range else "MPEG",
            interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND,
            threads=1,
        )
        if film.fields:
            frame = _with_field_order(frame, film.fields)
        frame.pts, frame.time_base = round((time + film.start) / base), base
        yield from video.encode(frame)
    yield from video.encode(None)


def _sound(container: OutputContainer, film: TestFilm) -> Iterator[Packet[Any]]:
    """Yield the encoded sound of a film."""
    import av
    from av.audio.stream import AudioStream

    rate, (begin, _) = film.audio_rate, film.sound or (0.0, 0.0)
    sound = cast("AudioStream", container.add_stream(film.audio_codec, rate=rate, layout="mono"))
    frame = av.AudioFrame.from_ndarray(film.samples()[None], format="fltp", layout="mono")
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    frame.pts = round((begin + film.start) * rate)
    resampler = av.AudioResampler(format=sound.codec_context.format.name, layout="mono", rate=rate)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        yield from sound.encode(part)
    yield from sound.encode(None)


def _with_field_order(frame: VideoFrame, first: str) -> VideoFrame:
    """Return the frame flagged as interlaced, with the top or the bottom field first."""
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 90000)
    )
    order, sink = graph.add("setfield", "tff" if first == "top" else "bff"), graph.add("buffersink")
    source.link_to(order)
    order.link_to(sink)
    graph.configure()
    frame.pts = 0
    graph.vpush(frame)
    return graph.vpull()


def read_timing(path: Path, **options: Any) -> Timing:
    """Read a test film; ``options`` are those of `read_video`."""
    shown, lit = [], []
    for frame in read_video(path, **options):
        height = frame.shape[0]
        rows = frame[height // 8 : height // 2 - height // 8].astype(np.float64)
        shown.append(PERIOD * float(rows.mean()) / 255)
        lit.append(frame[3 * height // 4].mean() > 128)
    samples = read_audio(path)
    flashes, loud = np.flatnonzero(lit), np.flatnonzero(np.abs(samples) > 0.2)
    return Timing(
        np.array(shown),
        flashes[0] / 25 if flashes.size else np.nan,
        loud[0] / 16000 if loud.size else np.nan,
        samples.size / 16000,
    )
