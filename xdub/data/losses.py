"""Parts of a video that could not be read, as rows of the ledger, and the time limit of a video."""

from __future__ import annotations

from collections.abc import Iterator

from xdub.data.clip import Clip
from xdub.data.ledger import LedgerRow
from xdub.data.spans import frames_id
from xdub.geometry import FPS
from xdub.media.damage import Damage
from xdub.media.deadline import TimeLimit
from xdub.media.probe import VideoInfo

LIMIT, LIMIT_RATIO = 3600.0, 60.0
"""Seconds that every video may take, and further seconds for each of its own."""
LEAST_RATE = 1000
"""Bytes a second of the smallest video whose stated length is believed."""


def time_limit(info: VideoInfo, limit: float | None) -> float:
    """Return the seconds that a video may take: ``limit``, or by default an hour and a minute for each second of it."""
    if limit is not None:
        return limit
    return LIMIT + LIMIT_RATIO * min(max(info.duration, 0.0), info.path.stat().st_size / LEAST_RATE)


def loss_rows(source: str, frames: int, picture: Damage, sound: Damage) -> Iterator[LedgerRow]:
    """Yield a row for pictures and one for sound that could not be read; ``frames`` of the video could.

    The value and threshold are the numbers of frames that were read and that the file states (packets of sound that
    were lost, and 0).
    """
    if picture.reason:
        stated = max(frames, round(picture.stated * FPS))
        yield LedgerRow(
            input=source,
            clip_id=frames_id(frames, stated),
            status="rejected",
            check="damaged",
            value=float(frames),
            threshold=float(stated),
            message=f"{frames} of {stated or 'its'} frames can be read: {picture.reason}",
        )
    if sound.reason or sound.packets:
        text = [f"{sound.packets} packets of its sound cannot be decoded"] if sound.packets else []
        text += [f"its sound ends early: {sound.reason}"] if sound.reason else []
        yield LedgerRow(
            input=source,
            clip_id="sound",
            status="rejected",
            check="damaged_sound",
            value=float(sound.packets),
            threshold=0.0,
            message="; ".join(text),
        )


def within_limit(source: str, items: Iterator[Clip | LedgerRow]) -> Iterator[Clip | LedgerRow]:
    """Yield the results of a video; one that takes longer than its limit ends with a row."""
    try:
        yield from items
    except TimeLimit as error:
        yield LedgerRow(
            input=source,
            status="rejected",
            check="deadline",
            value=error.seconds,
            threshold=error.limit,
            message=str(error),
        )
