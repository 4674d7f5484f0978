"""Loss weights at latent size from masks of pixels (paper B.2)."""

from __future__ import annotations

import numpy as np
from einops import rearrange

from xdub.errors import UserError

TIME_FACTOR = 4  # of every codec (METHOD, Geometry)
SPACE_FACTOR = 8


def to_latent_mask(mask: np.ndarray) -> np.ndarray:
    """bool [F,H,W], F = 4k + 1 -> float32 [1,f,h,w]: 1 where any of a latent's pixels is set.

    A latent covers 8 x 8 px of four frames, the first one of the first frame alone. UserError if the sizes do not fit.
    """
    frames, height, width = mask.shape
    if frames % TIME_FACTOR != 1 or height % SPACE_FACTOR or width % SPACE_FACTOR:
        raise UserError(
            f"a mask of {frames} frames, {width}x{height} px has no latents: use 4k + 1 frames, "
            f"sides divisible by {SPACE_FACTOR}"
        )
    blocks = rearrange(mask, "f (h p) (w q) -> f h w (p q)", p=SPACE_FACTOR, q=SPACE_FACTOR).any(-1)
    rest = rearrange(blocks[1:], "(f t) h w -> f t h w", t=TIME_FACTOR).any(1)
    return np.concatenate([blocks[:1], rest])[None].astype(np.float32)
