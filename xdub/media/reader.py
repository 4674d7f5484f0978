"""Read video files as RGB frames at a constant rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from xdub.errors import UserError
from xdub.media.container import audio_stream, open_media, stated_end, video_stream
from xdub.media.damage import Damage, until_damage
from xdub.media.deinterlace import deinterlaced
from xdub.media.edit_list import late_pictures
from xdub.media.pictures import Pictures
from xdub.media.probe import probe
from xdub.media.timeline import LIMIT, TimeLine

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Item = TypeVar("Item")
EARLY = 0.5
"""Seconds by which a file may end before the length in its header."""
TIE = 1e-6
"""Tolerance in seconds for rounded timestamps that fall half-way between two frames."""
STEP = 0.04
"""Duration in seconds of a frame in a file that states none that is plausible."""


def read_video(
    path: str | Path,
    *,
    fps: float = 25.0,
    max_frames: int | None = None,
    exact: bool = True,
    damage: Damage | None = None,
) -> Iterator[np.ndarray]:
    """Yield the frames of a video, upright and in BT.709 SDR, resampled to a constant rate (nearest frame in time).

    All frames have the size of the first, see `xdub.media.pictures`; HDR is converted, see `xdub.media.colours`.
    The generator holds three decoded frames at a time, for a video of any length. A repeated frame is yielded as the
    same array, so treat arrays as read-only.

    Args:
        exact: False converts colours several times faster, one level too dark (46 dB), for detection only.
        damage: record of damaged data, at which the frames end; without it they are an error.

    Yields:
        uint8 RGB [H, W, 3].

    Raises:
        UserError: the file cannot be opened as video (raised at the call), or its data are corrupt (while iterating).
    """
    if fps <= 0:
        raise UserError(f"fps must be positive, got {fps}")
    # Raise at the call, not at the first `next`.
    probe(path, damage)
    return _frames(Path(path), fps, max_frames, exact, damage)


def read_frames(path: str | Path, *, fps: float = 25.0, max_frames: int | None = None) -> np.ndarray:
    """Read a short video as one array uint8 [F, H, W, 3]; a frame at 1080p takes 6 MB."""
    return np.stack(list(read_video(path, fps=fps, max_frames=max_frames)))


def resample(timed: Iterable[tuple[float, float, Item]], fps: float, late: float = 0.0) -> Iterator[Item]:
    """Yield a constant-rate sequence from (time, duration, item); output n is the item nearest to n / fps.

    Time counts from ``late`` seconds before the first item. The output has ``round(total duration * fps)`` items, at
    least one.
    """
    previous: tuple[float, float, Item] | None = None
    start, n = 0.0, 0
    for time, duration, item in timed:
        if previous is None:
            start = time - late
        else:
            # Timestamps of broken files may decrease.
            time = max(time, previous[0] + start)
            middle = (previous[0] + time - start) / 2
            while n / fps <= middle + TIE:
                yield previous[2]
                n += 1
        previous = (time - start, duration, item)
    if previous is None:
        return
    total = max(1, round((previous[0] + previous[1]) * fps))
    for _ in range(n, total):
        yield previous[2]


def _frames(
    path: Path, fps: float, max_frames: int | None, exact: bool, damage: Damage | None
) -> Iterator[np.ndarray]:
    late = float(late_pictures(path))
    with open_media(path) as container:
        stream = video_stream(container, path, damage)
        stream.thread_type = "AUTO"
        pictures = Pictures(stream, exact=exact)
        converted: tuple[VideoFrame | None, np.ndarray] = (None, np.empty(0))
        sound = audio_stream(container)
        line = TimeLine(container, [stream] if sound is None else [stream, sound])
        for n, frame in enumerate(resample(_timed(line, stream, damage), fps, late)):
            if max_frames is not None and n >= max_frames:
                return
            if frame is not converted[0]:
                converted = (frame, pictures(frame))
            yield converted[1]
        stated = stated_end(container, stream)
        if damage is not None and stated is not None and stated - line.latest > EARLY:
            damage.note(f"ends early: at {line.latest:.2f} s of {stated:.2f} s that its header states")
            damage.stated = stated - (container.start_time or 0) / 1e6


def _timed(
    line: TimeLine, stream: VideoStream, damage: Damage | None
) -> Iterator[tuple[float, float, VideoFrame]]:
    """Yield (time, duration, frame), both in seconds; missing timestamps are extrapolated.

    The last frame lasts at most ``LIMIT`` seconds, or until the end of the sound, because durations in headers may lie.
    """
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    step = float(1 / rate)
    if not 0.001 <= step <= LIMIT:
        step = STEP
    last: tuple[float, float, VideoFrame] | None = None
    time = -step
    frames = until_damage(cast("Iterator[VideoFrame]", line.decode(stream, damage)), damage)
    for frame in deinterlaced(frames):
        before, time = time, frame.time if frame.time is not None else time + step
        if last is not None:
            yield last
            if time > before:
                # The measured step is more accurate than the header's rate for frames without a duration.
                step = min(time - before, LIMIT)
        duration = float(frame.duration * (frame.time_base or 0)) if frame.duration else step
        last = time, duration, frame
    if last is not None:
        # All packets have been read, so the line ends with the sound.
        time, duration, frame = last
        yield time, duration if duration <= LIMIT else max(step, line.end - time), frame
