"""Generation of whole face tracks: each window begins with the frames that its predecessor generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from xdub.data.recording import Recording
from xdub.data.sound import window_sound
from xdub.dub.segments import PAPER, Joining, Segment, window_index
from xdub.dub.window import Continuation, Window
from xdub.dub.window_sampler import WindowSampler


@dataclass(frozen=True, kw_only=True)
class Track:
    """A crop video in memory, N frames of S x S px, and its new speech."""

    frames: np.ndarray
    """uint8 [N,S,S,3]."""
    sound: np.ndarray
    """float32 [640 (N + 50)], the new speech between one second before and one after it (`xdub.data.sound`); zeros
    follow where it ends before the video."""
    noise: tuple[object, ...]
    """Parts that seed the noise, e.g. (seed, clip id)."""
    hidden: np.ndarray | None = None
    """bool [N,S,S] for a generator: M_vis, the pixels to inpaint."""


class Joiner:
    """Builder of the windows of one track, in order; it keeps the motion frames of the next window."""

    def __init__(
        self,
        num_frames: int,
        sound: np.ndarray,
        noise: tuple[object, ...],
        *,
        window: int,
        motion: int,
        first_frame: int = 0,
        recording: Recording | None = None,
        joining: Joining = PAPER,
    ) -> None:
        """Plan the segments.

        Args:
            first_frame: start of the track on the time line of ``sound``.
            recording: features of the whole ``sound``, for a network whose windows are cut from them.
            joining: how the windows continue one another.
        """
        self.num_frames, self.sound, self.first_frame = num_frames, sound, first_frame
        self.noise, self.window_frames, self.recording = noise, window, recording
        self.segments = joining.segments(num_frames, window, motion)
        self._tail: np.ndarray | None = None
        self._motion = motion
        self._continuation = Continuation(joining=joining, motion=motion) if joining.aligned else None

    def index(self, segment: Segment) -> np.ndarray:
        """Return the frame numbers [F] of the track that the segment's window reads."""
        return window_index(segment, self.num_frames, self.window_frames)

    def window(self, segment: Segment, frames: np.ndarray, hidden: np.ndarray | None = None) -> Window:
        """Build the segment's window from its own frames [F,S,S,3], selected by `index`."""
        if segment.motion and self._tail is None:
            # Before the first window the index repeats the first frame.
            self._tail = frames[: segment.motion].astype(np.float32)
        start = self.first_frame + segment.start
        recording = self.recording
        return Window(
            frames=frames,
            sound=window_sound(self.sound, start, self.window_frames),
            audio=None if recording is None else recording.window(start, self.window_frames),
            noise=(*self.noise, segment.index),
            motion=self._tail if segment.motion else None,
            hidden=hidden,
            continuation=self._continuation,
            last=segment is self.segments[-1],
        )

    def join(self, segment: Segment, generated: np.ndarray) -> np.ndarray:
        """Return the frames [keep, stop) that the segment contributes, from its window's [F,S,S,3]."""
        new = generated[segment.offsets()]
        if self._continuation is not None and self._continuation.tail is not None:
            self._tail = self._continuation.tail
            return new
        history = new if self._tail is None else np.concatenate([self._tail, new])
        self._tail = history[len(history) - self._motion :] if self._motion else None
        return new


def generate(
    tracks: Sequence[Track],
    sampler: WindowSampler,
    *,
    window: int,
    motion: int,
    batch: int,
    joining: Joining = PAPER,
    on_windows: Callable[[int, int], None] | None = None,
) -> list[np.ndarray]:
    """Dub all tracks: return float32 [N,S,S,3] in 0..255 for each, exactly as long as the track.

    Segments of equal index of different tracks are sampled together, ``batch`` at a time. ``on_windows(done, total)``
    is called after each batch; ``joining`` is that of `Joiner`.
    """
    joiners = [
        Joiner(
            len(track.frames),
            track.sound,
            track.noise,
            window=window,
            motion=motion,
            recording=sampler.recording(track.sound),
            joining=joining,
        )
        for track in tracks
    ]
    parts: list[list[np.ndarray]] = [[] for _ in tracks]
    total, done = sum(len(joiner.segments) for joiner in joiners), 0
    for round_index in range(max((len(joiner.segments) for joiner in joiners), default=0)):
        waiting = [n for n, joiner in enumerate(joiners) if round_index < len(joiner.segments)]
        for first in range(0, len(waiting), batch):
            chosen = waiting[first : first + batch]
            windows = [_window(tracks[n], joiners[n], joiners[n].segments[round_index]) for n in chosen]
            for n, generated in zip(chosen, sampler(windows), strict=True):
                parts[n].append(joiners[n].join(joiners[n].segments[round_index], generated))
            done += len(chosen)
            if on_windows is not None:
                on_windows(done, total)
    return [np.concatenate(pieces) for pieces in parts]


def _window(track: Track, joiner: Joiner, segment: Segment) -> Window:
    index = joiner.index(segment)
    return joiner.window(segment, track.frames[index], None if track.hidden is None else track.hidden[index])
