"""One time line for the picture and the sound of a file: jumps of time stamps are closed at joints of recordings.

Joined recordings (``cat a.ts b.ts``) and damaged files hold time stamps that jump back, or forward by hours. A file is
split there into pieces, and every piece follows the end of the piece before. Picture and sound of a piece are shifted
by the same seconds, so they stay together after any number of joints. A gap in one stream alone is no joint: sound
lasts under a still picture. Both readers see the same packets in the same order, so they find the same joints without
a pass of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from xdub.media.damage import Damage
from xdub.media.strays import BACKWARD, is_last, without_strays

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame

LIMIT = 10.0
"""Largest gap in seconds that is real, as in FFmpeg's own tool: silence, or a still picture. A larger gap is closed."""
OVERHANG = 0.1
"""Seconds by which sound may outlast the picture of its piece, because codecs fill their last block."""
HELD = 300
"""Number of packets of a new piece that wait until its position is known."""
ORDERED, AWAY = 5, 20
"""Number of pictures that show which comes first, and of pictures elsewhere after which a piece waits for none."""
RECENT = 8
"""Number of pieces that a stream may lag behind another."""
STRAY = 5
"""Number of packets in a row that may have wrong time stamps within one piece."""


@dataclass(eq=False)
class _Piece:
    """A stretch of packets between two joints; times are those of the file."""

    begin: float
    """Earliest time of a packet."""
    newest: float
    """Latest time of a packet."""
    forward: bool = False
    """True if it begins with a jump forward, which is a joint only if all streams jump."""
    shift: float | None = None
    """Seconds that the line adds to the time stamps; None until the position of the piece is known."""
    first: dict[int, float] = field(default_factory=dict)
    """Earliest time of each stream."""
    ends: dict[int, float] = field(default_factory=dict)
    """End of each stream."""
    held: int = 0
    """Number of its packets that came while the shift was unknown."""
    pictures: int = 0
    """Number of pictures among these."""
    away: int = 0
    """Number of pictures of other pieces that came meanwhile."""


@dataclass(eq=False)
class _Track:
    """Position of one stream; decoding times never decrease within a recording, presentation times may."""

    piece: _Piece | None = None
    decoded: float | None = None
    """Decoding time of the last packet, None if it has none."""
    shown: float = 0.0
    """Presentation time of the last packet."""
    step: float = 0.0
    """Seconds between packets."""
    end: float | None = None
    """End of the stream on the line, in pieces whose shift is known."""
    count: int = 0
    """Number of packets since the stream joined its piece."""
    before: tuple[_Piece, float] | None = None
    """Piece that the stream left, and its last decoding time there."""

    def goes_back(self, decoded: float | None) -> bool:
        """Return True if a packet's decoding time lies before the last one's."""
        return decoded is not None and self.decoded is not None and decoded < self.decoded - BACKWARD

    def continues(self, piece: _Piece, decoded: float | None, shown: float) -> bool:
        """Return True if a packet at these times may follow the track's last packet in its piece."""
        return (
            not self.goes_back(decoded)
            and piece.begin - LIMIT <= shown <= max(piece.newest, self.shown) + LIMIT
        )


class TimeLine:
    """Reads packets of a container and rewrites their time stamps.

    Args:
        container: an open file, read from its begin.
        streams: the picture first, whose frames follow each other without a gap at a joint; then the sound.
    """

    def __init__(self, container: InputContainer, streams: Sequence[Stream]) -> None:
        self._container = container
        self._streams = list(streams)
        self._lead = streams[0].index
        self._tracks = {stream.index: _Track() for stream in streams}
        self._pieces: list[_Piece] = []
        self.latest = 0.0
        """Latest time stamp so far, in seconds of the file's own clock."""
        self.joint: float | None = None
        """Time in seconds of the last joint on the line, or lost packet; None if there is none so far."""

    @property
    def end(self) -> float:
        """End of the last packet so far, in seconds on the line; 0 if there is none."""
        return max((track.end for track in self._tracks.values() if track.end is not None), default=0.0)

    def decode(self, stream: Stream, damage: Damage | None = None) -> Iterator[VideoFrame | AudioFrame]:
        """Yield the frames of one of the streams, with times on the line.

        Packets before the first frame that cannot be decoded are skipped, because a recording may begin between two
        key frames. With a record of ``damage``, later packets of sound are skipped and counted, too.
        """
        from av.error import FFmpegError

        started, sound = False, stream.type == "audio"
        for packet in self._packets(stream):
            try:
                frames = cast("Iterable[VideoFrame | AudioFrame]", packet.decode())
            except FFmpegError:
                if started and not (sound and damage is not None):
                    raise
                if damage is not None:
                    damage.packets += 1
                if packet.pts is not None and packet.time_base:
                    self.joint = float(packet.pts * packet.time_base)
                continue
            for frame in frames:
                started = True
                yield frame

    def _packets(self, target: Stream) -> Iterator[Packet[Stream]]:
        waiting: deque[tuple[Packet[Stream], _Piece]] = deque()
        for packet in without_strays(self._container.demux(*self._streams)):
            if is_last(packet):
                # The decoder is emptied by such a packet at the end of the file.
                self._settle()
                yield from _shifted(waiting)
                if packet.stream_index == target.index:
                    yield packet
                continue
            piece = self._place(packet)
            if packet.stream_index == target.index:
                waiting.append((packet, piece))
            yield from _shifted(waiting)

    def _place(self, packet: Packet[Stream]) -> _Piece:
        """Return the piece of a packet, and record its times."""
        index, track, base = packet.stream_index, self._tracks[packet.stream_index], packet.time_base or 0
        decoded = None if packet.dts is None else float(packet.dts * base)
        shown = decoded if packet.pts is None else float(packet.pts * base)
        if shown is None or packet.is_discard:
            return track.piece or (
                self._pieces[-1] if self._pieces else self._open(shown or 0.0, forward=False)
            )
        self.latest = max(self.latest, shown)
        piece = self._choose(track, decoded, shown)
        if piece is not track.piece:
            returns = track.before is not None and piece is track.before[0]
            leaves = track.piece is not None and track.decoded is not None and not returns
            track.before = (track.piece, track.decoded) if leaves else None
            track.piece, track.count = piece, 0
        elif decoded is not None and track.decoded is not None and 0 < decoded - track.decoded <= LIMIT:
            track.step = decoded - track.decoded
        track.decoded, track.shown, track.count = decoded, shown, track.count + 1
        duration = float((packet.duration or 0) * base)
        end = shown + (duration if 0 < duration <= LIMIT else track.step)
        piece.begin, piece.newest = min(piece.begin, shown), max(piece.newest, shown)
        piece.first[index] = min(piece.first.get(index, shown), shown)
        piece.ends[index] = max(piece.ends.get(index, end), end)
        if piece.shift is not None:
            self._extend(track, piece.ends[index] + piece.shift)
            self._merge(piece, shown)
        else:
            piece.held += 1
            piece.pictures += index == self._lead
        open_piece = self._pieces[-1]
        if open_piece.shift is None:
            open_piece.away += index == self._lead and piece is not open_piece
            if self._known(open_piece):
                self._settle()
        return piece

    def _known(self, piece: _Piece) -> bool:
        """Return True if enough packets of the newest piece have been seen to place it."""
        if piece.held > HELD or piece.away >= (ORDERED if piece.pictures else AWAY):
            return True
        jumped = len(piece.first) == len(self._streams) or not piece.forward
        return jumped and piece.pictures >= ORDERED

    def _choose(self, track: _Track, decoded: float | None, shown: float) -> _Piece:
        own = track.piece
        if own is None:
            fitting = [p for p in self._pieces if p.begin - LIMIT <= shown <= p.newest + LIMIT]
            if not fitting:
                return self._open(shown, forward=any(shown > piece.newest for piece in self._pieces))
            return min(reversed(fitting), key=lambda piece: abs(piece.newest - shown))
        continues = track.continues(own, decoded, shown)
        if not continues and track.before is not None and track.count <= STRAY and decoded is not None:
            piece, last = track.before
            if 0 <= decoded - last <= 1.0:
                return piece
        later = self._pieces[self._pieces.index(own) + 1 :] if own in self._pieces else self._pieces
        if continues and later and decoded is not None and track.decoded is not None:
            # Other streams have passed a joint, and this stream has not yet.
            if abs(decoded - track.decoded - track.step) <= max(track.step, 0.01):
                return own
        if later:
            # Packets of one moment lie close together in a file.
            options = [*reversed(later), *([own] if continues else [])]
            nearest = min(options, key=lambda piece: abs(piece.newest - shown))
            if abs(nearest.newest - shown) <= LIMIT:
                return nearest
        elif continues:
            return own
        return self._open(shown, forward=not track.goes_back(decoded))

    def _open(self, time: float, *, forward: bool) -> _Piece:
        """Append a piece."""
        if any(piece.shift is None and not (piece.forward and forward) for piece in self._pieces):
            self._settle()
        self._pieces.append(_Piece(time, time, forward, None if self._pieces else 0.0))
        del self._pieces[:-RECENT]
        return self._pieces[-1]

    def _merge(self, piece: _Piece, time: float) -> None:
        """Undo jumps forward of one stream if another stream has reached them without a jump."""
        for other in [p for p in self._pieces if p.shift is None and p.forward and time >= p.begin - LIMIT]:
            self._pieces.remove(other)
            other.shift, piece.newest = piece.shift, max(piece.newest, other.newest)
            for index, track in self._tracks.items():
                if track.piece is other:
                    track.piece = piece
                if index in other.ends:
                    piece.ends[index] = max(piece.ends.get(index, other.ends[index]), other.ends[index])
                    self._extend(track, piece.ends[index] + (piece.shift or 0.0))

    def _settle(self) -> None:
        """Place the pieces with unknown positions behind the others."""
        for piece in [p for p in self._pieces if p.shift is None and p.first]:
            leader = self._lead if self._lead in piece.first else next(iter(piece.first))
            ends = [track.end for track in self._tracks.values() if track.end is not None]
            end, latest = self._tracks[leader].end, max(ends, default=0.0)
            if end is None or latest > end + OVERHANG:
                end = latest
            begin, earliest = piece.first[leader], min(piece.first.values())
            piece.shift = end - (earliest if earliest < begin - OVERHANG else begin)
            other = self._tracks[self._lead].piece
            went_on = piece.away >= AWAY and not piece.pictures and not piece.forward
            if (
                went_on
                and other is not None
                and other.shift is not None
                and end - begin - other.shift <= LIMIT
            ):
                # The pictures had no joint: the sound alone stepped back, so it keeps their shift.
                piece.shift = other.shift
                continue
            self.joint = end
            for index, raw in piece.ends.items():
                self._extend(self._tracks[index], raw + piece.shift)

    @staticmethod
    def _extend(track: _Track, end: float) -> None:
        track.end = end if track.end is None else max(track.end, end)


def _shifted(waiting: deque[tuple[Packet[Stream], _Piece]]) -> Iterator[Packet[Stream]]:
    """Remove the packets whose shift is known from the front, and yield them with shifted time stamps."""
    while waiting and waiting[0][1].shift is not None:
        packet, piece = waiting.popleft()
        if piece.shift and packet.time_base:
            ticks = round(piece.shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        yield packet
