"""Pictures of files whose edit list begins between two frames (mp4 and mov), as trimming without encoding writes them.

FFmpeg drops the frame that the cut divides, and moves the next one to the cut. The sound begins at the cut exactly, so
the pictures would be early by up to one frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from xdub.media.container import moving_stream, open_media

FIRST = 20
"""Number of packets that are searched for the first picture; codecs reorder at most 16."""
LONGEST = 1
"""Longest plausible duration of a frame in seconds."""
MOST_BOXES = 10_000
"""Number of boxes that are searched; a damaged file may hold any number of empty ones."""


def late_pictures(path: str | Path) -> Fraction:
    """Return by how many seconds the pictures of a video are later than FFmpeg's time stamps state; mostly 0."""
    with open_media(path) as container:
        stream = moving_stream(container)
        if stream is None or "mp4" not in container.format.name:
            return Fraction(0)
        with Path(path).open("rb") as file:
            cut = _first_cut(file, stream.id)
        if not cut or not next(container.demux(stream)).is_discard:
            return Fraction(0)
        shown = []
        for packet in container.demux(stream):
            if not packet.is_discard and packet.pts is not None and packet.pos is not None:
                shown.append((packet.pts, packet.pos))
                if len(shown) == FIRST:
                    break
    if not shown:
        return Fraction(0)
    _, position = min(shown)
    with open_media(path, ignore_editlist="1") as container:
        raw = moving_stream(container)
        if raw is None or raw.time_base is None:
            return Fraction(0)
        for packet in container.demux(raw):
            if packet.pos == position and packet.pts is not None:
                late = packet.pts * raw.time_base - cut
                return late if 0 < late < LONGEST else Fraction(0)
    return Fraction(0)


def _first_cut(file: BinaryIO, track: int) -> Fraction | None:
    """Return the time in seconds in a track's own samples at which its first edit begins, None if it is unknown."""
    for moov, end in _boxes(file, b"moov", *_whole(file)):
        for trak, stop in _boxes(file, b"trak", moov, end):
            header = _content(file, b"tkhd", trak, stop, 20)
            number = _field(header, 20 if header[:1] == b"\1" else 12)
            if number != track:
                continue
            for mdia, mdia_end in _boxes(file, b"mdia", trak, stop):
                media = _content(file, b"mdhd", mdia, mdia_end, 24)
                scale = _field(media, 20 if media[:1] == b"\1" else 12)
                for edts, edts_end in _boxes(file, b"edts", trak, stop):
                    begin = _media_time(_content(file, b"elst", edts, edts_end, 8 + 20 * 16))
                    return Fraction(begin, scale) if begin is not None and scale else None
    return None


def _media_time(edits: bytes) -> int | None:
    """Return the start of the first edit that is not empty, in ticks, from the content of a box ``elst``."""
    wide = edits[:1] == b"\1"
    layout, size = (">Qq", 20) if wide else (">Ii", 12)
    for offset in range(8, len(edits) - size + 1, size):
        _, begin = struct.unpack_from(layout, edits, offset)
        if begin >= 0:
            return begin
    return None


def _whole(file: BinaryIO) -> tuple[int, int]:
    """Return the first position of a file and the position after its last byte."""
    return 0, file.seek(0, 2)


def _boxes(file: BinaryIO, kind: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the content of each box of a kind in [begin, end)."""
    for _ in range(MOST_BOXES):
        file.seek(begin)
        header = file.read(16)
        if begin + 8 > end or len(header) < 8:
            return
        size, length = int.from_bytes(header[:4], "big"), 8
        if size == 1:
            size, length = int.from_bytes(header[8:16], "big"), 16
        stop = end if size == 0 else min(begin + size, end)
        if stop < begin + length:
            return
        if header[4:8] == kind:
            yield begin + length, stop
        begin = stop


def _content(file: BinaryIO, kind: bytes, begin: int, end: int, most: int) -> bytes:
    """Return up to ``most`` bytes of the first box of a kind in [begin, end), nothing without such a box."""
    for start, stop in _boxes(file, kind, begin, end):
        file.seek(start)
        return file.read(min(most, stop - start))
    return b""


def _field(content: bytes, offset: int) -> int:
    """Return the unsigned 32-bit number at an offset, 0 beyond the end."""
    return int.from_bytes(content[offset : offset + 4], "big") if len(content) >= offset + 4 else 0
