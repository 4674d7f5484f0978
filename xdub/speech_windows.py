"""Numbers of the rows of audio features that a window carries and that each of its latents attends to (paper B.2).

Row n of a recording's features begins at sample 320 n, so frame n has the rows 2n and 2n + 1. There are two forms:

- ``frames``: a latent attends to 16 rows that are centred on the rows of its own frames. A row beyond the ends of the
  recording is zero, and the attention masks it.
- ``published``: a latent attends to 8 rows, as in the published editors of X-Dub and TBDub. The rows of latent 0 end
  with its only frame; the rows of a later latent are those of its four frames. A row beyond the ends of the recording
  repeats the first or last row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xdub.geometry import AUDIO_MARGIN, AUDIO_WINDOW, ROWS_PER_FRAME, CodecGeometry

SpeechForm = Literal["frames", "published"]
"""Choice of the rows of audio features that each latent attends to."""


@dataclass(frozen=True, kw_only=True)
class SpeechWindows:
    """Rows of a window and of its latents, in the order of the recording's rows."""

    rows: int
    """Rows that one latent attends to."""
    before: int
    """Rows of a window before those of its first frame."""
    after: int
    """Rows of a window after those of its last frame."""
    second: int
    """First row of latent 1 within the window's rows; latent 0 begins at the first row."""
    own: int
    """Rows of the frames of one latent after the first."""
    repeats_ends: bool
    """True: a row beyond the ends of the recording repeats its first or last row. False: the row is zero."""

    def count(self, num_frames: int) -> int:
        """Return T, the rows of a window of ``num_frames`` frames."""
        return self.before + ROWS_PER_FRAME * num_frames + self.after

    def first_row(self, frame: int) -> int:
        """Return the recording's row with which the window that starts at ``frame`` begins; it may be negative."""
        return ROWS_PER_FRAME * frame - self.before

    def starts(self, num_latents: int) -> np.ndarray:
        """Return int64 [f], the first row of each latent within the window's rows."""
        starts = self.own * (np.arange(num_latents, dtype=np.int64) - 1) + self.second
        starts[0] = 0
        return starts


def speech_windows(form: SpeechForm, geometry: CodecGeometry) -> SpeechWindows:
    """Return the numbers of a form for the latents of a codec."""
    own = geometry.rows_per_latent
    if form == "published":
        # The first latent has one frame, so it borrows the rows of the frames before the window.
        return SpeechWindows(
            rows=own, before=own - ROWS_PER_FRAME, after=0, second=own, own=own, repeats_ends=True
        )
    return SpeechWindows(
        rows=AUDIO_WINDOW,
        before=AUDIO_MARGIN,
        after=AUDIO_MARGIN,
        # Latent 1 begins at frame 1.
        second=AUDIO_MARGIN + ROWS_PER_FRAME - (AUDIO_WINDOW - own) // 2,
        own=own,
        repeats_ends=False,
    )
