"""Frames of a video at a constant rate, played back and forth where the speech lasts longer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from xdub.dub.segments import mirror_index
from xdub.geometry import FPS
from xdub.media import read_video

MEMORY = 512 << 20
"""Bytes of decoded frames held while playing backwards."""


def mirrored_frames(
    path: str | Path, count: int, length: int, *, fps: float = FPS, memory: int = MEMORY
) -> Iterator[np.ndarray]:
    """Yield ``length`` frames uint8 [H,W,3] of the video's first ``count``: 0 .. count-1, back to 0, and so on.

    The order is that of `segments.mirror_index`. A video cannot be decoded backwards: its frames are read again in
    pieces that fit ``memory``, the last piece first (a short video is kept whole and read once).
    """
    forward = read_video(path, fps=fps, max_frames=count)
    if length <= count:
        yield from islice(forward, length)
        return
    first = next(forward)
    piece = max(2, memory // max(1, first.nbytes))
    if count <= piece:
        frames = [first, *forward]
        yield from (frames[n] for n in mirror_index(count, length))
        return
    yield first
    yield from forward
    done = count
    while done < length:
        # The turning frames, count-1 and 0, are shown once.
        for frame in islice(_backwards(path, count, piece, fps), 1, count - 1):
            if done == length:
                return
            yield frame
            done += 1
        for frame in islice(read_video(path, fps=fps, max_frames=count), length - done):
            yield frame
            done += 1


def _backwards(path: str | Path, count: int, piece: int, fps: float) -> Iterator[np.ndarray]:
    for start in reversed(range(0, count, piece)):
        stop = min(start + piece, count)
        yield from reversed(list(islice(read_video(path, fps=fps, max_frames=stop), start, None)))
