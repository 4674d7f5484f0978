"""The facts of a video file, from its header and first frame."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from xdub.errors import UserError
from xdub.media.colours import check_colours
from xdub.media.container import audio_stream, open_media, seconds, video_stream
from xdub.media.damage import Damage
from xdub.media.orientation import orientation
from xdub.media.timeline import TimeLine

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

MOST_ASPECT = 8
"""Largest ratio of a pixel's sides that is plausible; a damaged header would decide the memory of a picture."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Facts of a video file; sizes are as displayed (pixel aspect and rotation applied)."""

    path: Path
    width: int
    height: int
    fps: float
    """Average rate of the file; the reader resamples to a constant rate."""
    frames: int
    """Number of stored frames as the header states it, computed from the duration if the container has no count."""
    duration: float
    """Duration in seconds as the header states it, which may be wrong: only a display of progress may rely on it."""
    rotation: int
    """Degrees, counter-clockwise; the reader turns the pictures, and mirrors them where the file states it."""
    codec: str
    pixel_format: str
    has_audio: bool
    audio_rate: int | None
    audio_channels: int | None


def probe(path: str | Path, damage: Damage | None = None) -> VideoInfo:
    """Read the header and the first frame of a video; ``damage`` records that it is truncated, which else is an error.

    Raises:
        UserError: the file is no readable video (see ``xdub.media.container``), or no frame can be decoded.
    """
    with open_media(path) as container:
        stream = video_stream(container, path, damage)
        first = cast("VideoFrame | None", next(TimeLine(container, [stream]).decode(stream), None))
        if first is None:
            raise UserError(f"{path}: no frame can be decoded from its video stream")
        check_colours(first, stream, path)
        width, height = display_size(first, stream.sample_aspect_ratio)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        if stream.duration:
            duration = seconds(stream.duration, stream)
        elif container.duration:
            duration = container.duration / 1e6
        else:
            duration = stream.frames / float(rate)
        audio = audio_stream(container)
        return VideoInfo(
            path=Path(path),
            width=width,
            height=height,
            fps=float(rate),
            frames=stream.frames or round(duration * float(rate)),
            duration=duration,
            rotation=orientation(first).rotation,
            codec=stream.codec_context.name,
            pixel_format=first.format.name,
            has_audio=audio is not None,
            audio_rate=audio.rate if audio else None,
            audio_channels=audio.channels if audio else None,
        )


def count_frames(path: str | Path) -> int:
    """Return the number of stored frames of a video, from its packets: neither the header counts nor a decoder.

    Raises:
        UserError: the file is no readable video.
    """
    with open_media(path) as container:
        stream = video_stream(container, path)
        return sum(packet.size > 0 for packet in container.demux(stream))


def upright_size(frame: VideoFrame, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Return (width, height) with square pixels, before rotation; a pixel aspect that cannot be right is ignored."""
    if not pixel_aspect or pixel_aspect == 1 or not 1 / MOST_ASPECT <= pixel_aspect <= MOST_ASPECT:
        return frame.width, frame.height
    if pixel_aspect > 1:
        return round(frame.width * pixel_aspect), frame.height
    return frame.width, round(frame.height / pixel_aspect)


def display_size(frame: VideoFrame, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Return (width, height) as a player shows the frame."""
    width, height = upright_size(frame, pixel_aspect)
    return (height, width) if orientation(frame).transposed else (width, height)
