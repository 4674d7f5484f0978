"""Gaussian-feathered masks whose soft edges lie inside the mask (paper B.3)."""

from __future__ import annotations

import numpy as np


def feather_inside(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Return M~ [F,H,W] float32 of a bool mask [F,H,W]: exactly 0 outside, rising to 1 about two sigma within.

    A Gaussian blur of a mask is one half on a straight edge. Twice its excess over one half is thus a ramp that starts
    at the edge, inside. Where the mask reaches the picture's border there is no ramp.
    """
    if sigma <= 0:
        return mask.astype(np.float32)
    return np.where(mask, np.clip(2 * blur(mask, sigma) - 1, 0, 1), 0).astype(np.float32)


def keep_away(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Return a weight [F,H,W] float32 that is exactly 0 on a bool mask and rises to 1 about two sigma outside of it."""
    return feather_inside(~mask, sigma)


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """Blur images [F,H,W(,C)] with a Gaussian, as float32; the border is repeated."""
    import cv2

    size = 2 * int(np.ceil(3 * sigma)) + 1
    return np.stack(
        [
            cv2.GaussianBlur(image.astype(np.float32), (size, size), sigma, borderType=cv2.BORDER_REPLICATE)
            for image in images
        ]
    )
