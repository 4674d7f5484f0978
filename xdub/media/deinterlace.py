"""Whole pictures from interlaced ones, whose rows show two moments, with FFmpeg's filter ``bwdif``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame

SETTINGS = "mode=send_frame:parity=auto:deint=interlaced"
"""Options of the filter: a picture for each frame, at the moment of its first field; progressive frames pass."""
LEAST = 16
"""Smallest width and height in px of a picture that is changed; the filter needs three rows of colour."""


def deinterlaced(frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    """Yield the frames with the same time stamps, the interlaced ones as a picture of their first moment.

    Frames pass untouched up to the first that is interlaced, so a progressive video costs nothing.
    """
    graph: Graph | None = None
    setup: tuple[int, int, str] | None = None
    for frame in frames:
        now = (frame.width, frame.height, frame.format.name)
        if graph is not None and now != setup:
            yield from _rest(graph)
            graph = None
        if graph is None:
            if not frame.interlaced_frame or min(frame.width, frame.height) < LEAST:
                yield frame
                continue
            graph, setup = _graph(frame), now
        graph.vpush(frame)
        yield from _ready(graph)
    if graph is not None:
        yield from _rest(graph)


def _graph(frame: VideoFrame) -> Graph:
    """Build the filter for frames of this size and format."""
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    change, sink = graph.add("bwdif", SETTINGS), graph.add("buffersink")
    source.link_to(change)
    change.link_to(sink)
    graph.configure()
    return graph


def _ready(graph: Graph) -> Iterator[VideoFrame]:
    """Yield the frames that the filter has finished."""
    from av.error import BlockingIOError, EOFError

    with suppress(BlockingIOError, EOFError):
        while True:
            yield graph.vpull()


def _rest(graph: Graph) -> Iterator[VideoFrame]:
    """Yield the last frames of the filter."""
    graph.vpush(None)
    yield from _ready(graph)
