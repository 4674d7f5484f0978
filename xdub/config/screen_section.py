"""Section `screen` of a recipe: thresholds of the checks of new clips. A check whose threshold is null is off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from xdub.config.checks import ADDED, NOT_NEGATIVE, SHARE

MOST_SHIFT = 6
"""Largest offset of sound and lips that is corrected, frames; LatentSync's preparation has the same limit."""


@dataclass(frozen=True, kw_only=True)
class ScreenConfig:
    """Checks of `xdub prepare` beyond sound, size and motion; docs/footage.md has the measurements behind them."""

    sharpness: Annotated[float | None, NOT_NEGATIVE] = field(default=20.0, metadata=ADDED)
    """Least sharpness of the face, in thousandths (`xdub.screen.pictures`)."""
    clipped: Annotated[float | None, SHARE] = field(default=0.25, metadata=ADDED)
    """Largest share of the face that is overexposed or black."""
    contrast: Annotated[float | None, NOT_NEGATIVE] = field(default=20.0, metadata=ADDED)
    """Least range of the face's grey levels."""
    yaw: Annotated[float | None, NOT_NEGATIVE] = field(default=50.0, metadata=ADDED)
    """Largest turn of the head, degrees."""
    pitch: Annotated[float | None, NOT_NEGATIVE] = field(default=50.0, metadata=ADDED)
    """Largest nod of the head, degrees."""
    speech: Annotated[float | None, SHARE] = field(default=0.25, metadata=ADDED)
    """Least share of the frames with speech, by Silero."""
    shift: Annotated[int | None, NOT_NEGATIVE] = field(default=MOST_SHIFT, metadata=ADDED)
    """Largest offset of sound and lips that is corrected, frames. The network is the one of `perception.sync`."""
    offset_confidence: Annotated[float, NOT_NEGATIVE] = field(default=7.0, metadata=ADDED)
    """Height of an offset's peak, in standard deviations, from which it is corrected or rejected."""
    letterbox: bool = field(default=True, metadata=ADDED)
    """Cut off black bars around the picture before faces are cropped."""
    speaker_lead: Annotated[float | None, NOT_NEGATIVE] = field(default=0.15, metadata=ADDED)
    """Least lead of the speaking face over the other faces of a shot (`xdub.screen.active_speaker`). None: the most
    prominent face is used, even if another one speaks."""
    speaker_face: float | None = field(default=None, metadata=ADDED)
    """Least cosine of a clip's face with its speaker's; None is the own value of `perception.identity`
    (`Embedder.same_speaker`)."""
    speaker_voice: float = field(default=0.65, metadata=ADDED)
    """Least cosine of a clip's voice with its speaker's."""
    require_sync: bool = field(default=False, metadata=ADDED)
    """Reject clips whose sound matches the lips at no offset. False: their score is recorded alone."""

    def failed_checks(self, path: str) -> Iterator[str]:
        """Yield a message for an offset that a SyncNet cannot measure."""
        if self.shift is not None and self.shift > 12:
            yield f"{path}.shift={self.shift} is more than 12 frames, beyond which offsets are not measured"
