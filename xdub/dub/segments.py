"""Which frames each window of a long video generates (paper B.3).

The first window generates F frames. Every later one starts ``motion`` frames before the end of what exists, is given
those frames, and generates the rest. All windows have the same F = 4k + 1 frames, so that one compiled step and one
batch serve them all: the last window is moved back to end with the video (it is then given frames that lie earlier,
and generates the overlap again), and a video shorter than F is padded by its mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Segment:
    """One window: it covers frames [start, start + F), ``motion`` of them given, and contributes [keep, stop)."""

    index: int
    start: int
    motion: int
    keep: int
    stop: int

    def offsets(self) -> slice:
        """Where the contributed frames lie within the window."""
        return slice(self.keep - self.start, self.stop - self.start)


def plan_segments(num_frames: int, window: int, motion: int) -> list[Segment]:
    """Segments that contribute every one of ``num_frames`` exactly once, in order.

    ``window`` and ``motion`` are frames of the form 4k + 1 (0 motion frames: windows that know nothing of each other).
    """
    check_window(window, motion)
    if num_frames < 1:
        raise ValueError(f"num_frames={num_frames}: nothing to generate")
    last_start = max(0, num_frames - window)
    segments: list[Segment] = []
    done = 0
    while done < num_frames:
        start = min(max(0, done - motion), last_start)
        given = motion if segments else 0
        stop = min(start + window, num_frames)
        segments.append(Segment(len(segments), start, given, start + given, stop))
        done = stop
    # A window that was moved back generates frames its predecessor had made, too; the later one has the say.
    return [
        Segment(s.index, s.start, s.motion, s.keep, following.keep)
        for s, following in zip(segments, segments[1:], strict=False)
    ] + segments[-1:]


def check_window(window: int, motion: int) -> None:
    """Raise ValueError unless a window holds frames besides its motion frames. The codec checks that both fit it."""
    if motion < 0:
        raise ValueError(f"motion_frames={motion}: must be zero or more")
    if motion >= window:
        raise ValueError(f"motion_frames={motion} leaves nothing to generate in a window of {window}")


def mirror_index(count: int, length: int) -> np.ndarray:
    """Frame numbers [length] that walk 0 .. count-1 and back, for ever: never a jump, never a frame twice in a row."""
    if count < 1:
        raise ValueError("no frames to extend")
    if count == 1:
        return np.zeros(length, np.int64)
    phase = np.arange(length) % (2 * count - 2)
    return np.where(phase < count, phase, 2 * count - 2 - phase)


def window_index(segment: Segment, num_frames: int, window: int) -> np.ndarray:
    """Frame numbers [window] that the segment reads; mirrored at the end when the video is shorter than a window."""
    return segment.start + mirror_index(num_frames - segment.start, window)
