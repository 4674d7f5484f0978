"""Single wrong time stamps of packets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

BACKWARD = 0.03
"""Largest step back in seconds within one recording, for rounded time stamps; decoding times never decrease."""
STRAY_JUMP = 0.1
"""Smallest step back in seconds of a time stamp that may be wrong; a step forward must be five times as large."""
WAITING = 300
"""Number of packets that wait for the next packet of a stream."""


def is_last(packet: Packet[Stream]) -> bool:
    """Return True for the packet without data that ends a stream."""
    return packet.dts is None and packet.pts is None and packet.size == 0


def without_strays(packets: Iterable[Packet[Stream]]) -> Iterator[Packet[Stream]]:
    """Yield all packets; a single time stamp that jumps, while the next one is where it would be without, is replaced.

    A packet after a jump, and the first of a stream, wait for the next of the stream, and all others wait behind.
    """
    # Each stream's last time and step in ticks, and the packet that waits.
    last: dict[int, int] = {}
    steps: dict[int, int] = {}
    unsure: dict[int, Packet[Stream]] = {}
    queue: deque[Packet[Stream]] = deque()
    for packet in packets:
        index, time = packet.stream_index, packet.dts
        queue.append(packet)
        if is_last(packet) or len(queue) > WAITING:
            last.update({stream: held.dts for stream, held in unsure.items() if held.dts is not None})
            unsure.clear()
        elif time is not None and packet.time_base and not packet.is_discard:
            jump = round(STRAY_JUMP / packet.time_base)
            stray, step = unsure.pop(index, None), steps.get(index, 0)
            if stray is not None and stray.dts is not None:
                right = stray.dts
                if index in steps and abs(time - last[index] - 2 * step) < min(
                    abs(time - right - step), jump
                ):
                    right = last[index] + step
                elif index not in steps and time < right - jump:
                    right = time - max(packet.duration or 0, 1)
                stray.pts = None if stray.pts is None else stray.pts + right - stray.dts
                stray.dts = last[index] = right
            gap = time - last.get(index, time)
            if index not in last or (index in steps and not -jump <= gap <= max(5 * jump, 3 * step)):
                unsure[index] = packet
                last.setdefault(index, time)
            else:
                steps[index], last[index] = max(gap, 0), time
        while queue and queue[0] is not unsure.get(queue[0].stream_index):
            yield queue.popleft()
    yield from queue
