"""Border of the sampled latents that is copied from the reference, as X-Dub's and TBDub's releases do.

The crop then joins its picture without a step. Motion frames keep their own border.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xdub.diffusion.flow_matching import rounded_time

MOST_NOISE = 0.95
"""Largest share of noise in the border, so that the border shows the reference from the first step on."""

RING = ((0, slice(None)), (-1, slice(None)), (slice(None), 0), (slice(None), -1))
"""Rows and columns of the ring's four sides."""


@dataclass(frozen=True, kw_only=True)
class Border:
    """The ring of one latent position on the four sides of every frame that is not a motion frame."""

    reference: Tensor
    """[B, C, f, h, w] clean latents of the source."""
    noise: Tensor
    """[B, C, f, h, w] noise with which sampling starts."""
    motion_frames: int = 0
    """Latent frames at the start of the window that keep their border."""
    every_step: bool = True
    """True: the ring is written before every evaluation and at the end. False: at the end only."""
    rounded: bool = False
    """True: the share of noise follows the rounded time of the network (`rounded_time`)."""

    def write(self, z: Tensor, t: float) -> None:
        """Overwrite the ring of z [B, C, f, h, w] by the reference with noise of level min(t, 0.95); clean at t = 0."""
        share = min(rounded_time(t) if self.rounded else t, MOST_NOISE)
        frames = slice(self.motion_frames, None)
        for rows, columns in RING:
            part = (slice(None), slice(None), frames, rows, columns)
            z[part] = (1 - share) * self.reference[part] + share * self.noise[part]
