"""Division of a long video into windows (paper B.3).

The first window generates F frames. Every later window starts ``motion`` frames before the end of the generated frames,
reads those frames, and generates the rest. All windows have the same F frames, so one compiled step and one batch serve
them all. The last window is moved back to end with the video: it then reads earlier frames and generates the overlap
again. A video shorter than F is padded by its mirror image.

Two options follow the published editors. With ``aligned``, the last window is not moved back but padded, so that every
window begins at a latent of its predecessor. With ``lead_in``, the first window begins ``motion`` frames before the
video; these frames repeat the first frame. With ``blend``, a window contributes the last ``blend`` of its motion frames
itself, because both windows decide them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from xdub.config import DubConfig, PairsConfig
from xdub.geometry import CodecGeometry


@dataclass(frozen=True)
class Segment:
    """One window: it covers frames [start, start + F), reads the first ``motion``, and contributes [keep, stop)."""

    index: int
    start: int
    motion: int
    keep: int
    stop: int

    def offsets(self) -> slice:
        """Return the position of the contributed frames within the window."""
        return slice(self.keep - self.start, self.stop - self.start)


@dataclass(frozen=True, kw_only=True)
class Joining:
    """The way in which the windows of a track continue one another; the default is that of the paper."""

    by_latents: bool = False
    """A window continues its predecessor's latents instead of its frames."""
    lead_in: bool = False
    """The first window begins with motion frames that repeat its first frame."""
    together: bool = False
    """The latents of all windows are decoded as one video."""
    blend: int = 0
    """Frames of the latent at a join that is the mean of both windows'; 0: it is that of the earlier window."""

    @property
    def aligned(self) -> bool:
        """True if every window begins at a latent of its predecessor."""
        return self.by_latents or self.together

    def segments(self, num_frames: int, window: int, motion: int) -> list[Segment]:
        """Return the segments of a track, see `plan_segments`."""
        return plan_segments(
            num_frames, window, motion, aligned=self.aligned, lead_in=self.lead_in, blend=self.blend
        )


PAPER = Joining()
"""Windows that continue frames and are decoded one by one (paper B.3)."""


def joining_of(settings: DubConfig | PairsConfig, geometry: CodecGeometry) -> Joining:
    """Return how the windows of an editor (section `dub`) or of a generator (section `pairs`) are joined."""
    if isinstance(settings, PairsConfig):
        return PAPER
    return Joining(
        by_latents=settings.motion == "latents",
        lead_in=settings.lead_in,
        together=settings.motion == "latents" or settings.join != "frames",
        blend=geometry.time if settings.join == "mean" else 0,
    )


def plan_segments(
    num_frames: int,
    window: int,
    motion: int,
    *,
    aligned: bool = False,
    lead_in: bool = False,
    blend: int = 0,
) -> list[Segment]:
    """Return the segments that contribute each of ``num_frames`` exactly once, in order.

    ``window`` and ``motion`` are numbers of frames that fit the codec; with 0 motion frames, windows are independent.
    """
    check_window(window, motion)
    if num_frames < 1:
        raise ValueError(f"num_frames={num_frames}: nothing to generate")
    first = -motion if lead_in else 0
    last_start = max(first, num_frames - window)
    segments: list[Segment] = []
    done = first
    while done < num_frames:
        start = max(first, done - motion)
        start = start if aligned else min(start, last_start)
        overlap = motion if segments or lead_in else 0
        stop = min(start + window, num_frames)
        keep = start + overlap - (blend if segments else 0)
        segments.append(Segment(len(segments), start, overlap, keep, stop))
        done = stop
    # A window that was moved back overlaps its predecessor; the later window's frames are used.
    return [
        Segment(s.index, s.start, s.motion, s.keep, following.keep)
        for s, following in zip(segments, segments[1:], strict=False)
    ] + segments[-1:]


def count_segments(num_frames: int, window: int, motion: int, *, lead_in: bool = False) -> int:
    """Return the length of `plan_segments` without the list, for hours of video."""
    check_window(window, motion)
    total = num_frames + motion if lead_in else num_frames
    return 1 + max(0, math.ceil((total - window) / (window - motion)))


def check_window(window: int, motion: int) -> None:
    """Raise ValueError unless a window holds frames besides its motion frames. The codec checks that both fit it."""
    if motion < 0:
        raise ValueError(f"motion_frames={motion}: must be zero or more")
    if motion >= window:
        raise ValueError(f"motion_frames={motion} leaves nothing to generate in a window of {window}")


def mirror_index(count: int, length: int) -> np.ndarray:
    """Return frame numbers [length] that walk 0 .. count-1 and back, without a jump or a repeated frame."""
    if count < 1:
        raise ValueError("no frames to extend")
    if count == 1:
        return np.zeros(length, np.int64)
    phase = np.arange(length) % (2 * count - 2)
    return np.where(phase < count, phase, 2 * count - 2 - phase)


def window_index(segment: Segment, num_frames: int, window: int) -> np.ndarray:
    """Return the frame numbers [window] that the segment reads.

    The video is mirrored where it ends before the window, and its first frame is repeated before its start.
    """
    return np.maximum(0, segment.start + mirror_index(num_frames - segment.start, window))
