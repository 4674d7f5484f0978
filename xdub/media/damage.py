"""Record of the parts of a file that could not be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass
class Damage:
    """Losses of one stream; a reader with this record reads as far as possible, where it would raise an error."""

    reason: str = ""
    """Reason for which the stream ended early; empty if it was read to its end."""
    packets: int = 0
    """Number of packets that could not be decoded."""
    stated: float = 0.0
    """Seconds of a stream that ended early, as its file states them; 0 if this is unknown."""

    def note(self, reason: str) -> None:
        """Record the first reason."""
        self.reason = self.reason or reason


def until_damage(items: Iterator[Item], damage: Damage | None) -> Iterator[Item]:
    """Yield the items up to an error of FFmpeg, which is recorded, and raised without a record."""
    from av.error import FFmpegError

    try:
        yield from items
    except FFmpegError as error:
        if damage is None:
            raise
        damage.note(reason_of(error))


def reason_of(error: Exception) -> str:
    """Return the text of an error of FFmpeg."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
