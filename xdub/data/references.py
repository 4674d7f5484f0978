"""Reference frames of another segment of the same source (paper B.3): the generator sees the person at another time.

A piece of a span gets frames of the piece before it, and the first piece those of the second. One piece more than
without references is in memory, whatever the length of the video.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from xdub.data.spans import Span

Piece = tuple[int, Span, np.ndarray]
"""First frame, span and crops uint8 [F, S, S, 3] of one clip."""


def with_references(pieces: Iterable[Piece], count: int) -> Iterator[tuple[Piece, np.ndarray | None]]:
    """Yield every piece with ``count`` frames uint8 [count, S, S, 3] of its neighbour in the span.

    A span of one piece has None, because another span may show another person.
    """
    waiting: Piece | None = None
    before: np.ndarray | None = None
    span: Span | None = None
    for piece in pieces:
        if piece[1] is not span:
            if waiting is not None:
                yield waiting, None
            waiting, before, span = piece, None, piece[1]
            if count == 0:
                yield piece, None
                waiting = None
            continue
        if waiting is not None:
            yield waiting, spread(piece[2], count)
            before, waiting = spread(waiting[2], count), None
        if count == 0:
            yield piece, None
            continue
        yield piece, before
        before = spread(piece[2], count)
    if waiting is not None:
        yield waiting, None


def spread(frames: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` frames at equal distances, from the middle of as many equal parts of ``frames``."""
    index = (np.arange(count) + 0.5) * len(frames) / count
    return frames[index.astype(int)].copy()
