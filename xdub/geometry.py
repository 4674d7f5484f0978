"""Rates and window sizes that every part shares, and how a codec divides a video (paper B.2, B.6)."""

from __future__ import annotations

from dataclasses import dataclass

from xdub.errors import UserError

FPS = 25
"""Frames a second of every clip, window and dubbed video."""
SAMPLE_RATE = 16_000
"""Audio samples a second."""
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
"""Audio samples of one video frame: 640."""
ROWS_PER_FRAME = 2
"""Rows of audio features of one video frame: every encoder gives 50 a second."""
AUDIO_WINDOW = 16
"""Rows of audio features that one latent frame attends to."""
AUDIO_MARGIN = 4
"""Rows of audio features that a training window carries before its first and after its last frame."""
SYNC_FRAMES = 5
"""Frames of the shortest video that a SyncNet judges."""
SOUND_MARGIN = 25
"""Frames of sound, one second, that speech features hear before the first and after the last frame of a window."""


@dataclass(frozen=True)
class CodecGeometry:
    """Division of a video of F frames, H x W px, into latents [C, f, h, w] by a causal codec.

    The first latent holds one frame and every later one ``time`` frames, so only F = time k + 1 frames fit.
    """

    channels: int
    """C, channels of a latent."""
    time: int
    """Video frames of a latent after the first."""
    space: int
    """Side, px, of the square that one latent position covers."""

    def fits(self, frames: int) -> bool:
        """Return whether ``frames`` video frames are a whole number of latents."""
        return frames >= 1 and frames % self.time == 1 % self.time

    def latent_frames(self, frames: int) -> int:
        """Return f for F video frames. UserError if F does not fit."""
        if not self.fits(frames):
            raise UserError(
                f"{frames} frames do not fit the causal codec: use {self.time}k + 1, "
                f"e.g. {6 * self.time + 1} or {19 * self.time + 1}"
            )
        return 1 + (frames - 1) // self.time

    def frames(self, latents: int) -> int:
        """Return F for f latent frames: the inverse of `latent_frames`."""
        return 1 + self.time * (latents - 1)

    def longest(self, frames: int) -> int:
        """Return the largest number of frames up to ``frames`` (at least 1) that fits."""
        return frames - (frames - 1) % self.time

    def latent_side(self, pixels: int) -> int:
        """Return the number of latent positions along a side of ``pixels``. UserError if the side does not divide."""
        if pixels % self.space:
            raise UserError(f"a side of {pixels} px is not divisible by the codec's {self.space} px")
        return pixels // self.space

    @property
    def rows_per_latent(self) -> int:
        """Rows of audio features of the frames of one latent after the first."""
        return ROWS_PER_FRAME * self.time
