"""Loss weights at latent size from masks of pixels (paper B.2)."""

from __future__ import annotations

import numpy as np
from einops import reduce

from xdub.errors import UserError
from xdub.geometry import CodecGeometry


def to_latent_mask(mask: np.ndarray, geometry: CodecGeometry) -> np.ndarray:
    """Reduce a mask bool [F,H,W] to float32 [1,f,h,w]: 1 where any of a latent's pixels is set.

    A latent covers a square of `geometry.space` px over `geometry.time` frames; the first latent covers the first frame
    alone. Raise UserError if the sizes do not fit.
    """
    frames, height, width = mask.shape
    space = geometry.space
    if not geometry.fits(frames) or height % space or width % space:
        raise UserError(
            f"a mask of {frames} frames, {width}x{height} px has no latents: use {geometry.time}k + 1 frames, "
            f"sides divisible by {space}"
        )
    blocks = reduce(mask, "f (h p) (w q) -> f h w", "max", p=space, q=space)
    rest = reduce(blocks[1:], "(f t) h w -> f h w", "max", t=geometry.time)
    return np.concatenate([blocks[:1], rest])[None].astype(np.float32)
