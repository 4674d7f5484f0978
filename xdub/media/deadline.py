"""The time limit of the work on one file."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from xdub.errors import UserError

STALL = 120.0
"""Most seconds without a frame or a block of sound."""


class TimeLimit(UserError):
    """A file that took longer than its limit; ``seconds`` were used of ``limit``."""

    def __init__(self, message: str, seconds: float, limit: float) -> None:
        super().__init__(message)
        self.seconds, self.limit = seconds, limit


@dataclass
class Deadline:
    """Time limit of a file, which begins with this object."""

    limit: float = float("inf")
    """Seconds for all work on the file."""
    stall: float = STALL
    """Seconds for its next frame or block of sound."""
    begin: float = field(default_factory=time.monotonic)
    decoding: float = 0.0
    """Seconds that cores worked in decoders for the file."""

    def used(self) -> float:
        """Return the seconds since the begin."""
        return time.monotonic() - self.begin

    def check(self, path: Path) -> float:
        """Return the seconds that the next message may take; raise `TimeLimit` if none remain."""
        used = self.used()
        if used >= self.limit:
            raise TimeLimit(
                f"{path}: not finished after {used:.0f} s (limit {self.limit:g} s)", used, self.limit
            )
        return min(self.stall, self.limit - used)
