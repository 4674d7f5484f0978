"""Soft edges that never touch what lies outside: Gaussian-feathered masks (paper B.3)."""

from __future__ import annotations

import numpy as np


def feather_inside(mask: np.ndarray, sigma: float) -> np.ndarray:
    """M~ [F,H,W] float32 of a bool mask [F,H,W]: 0 outside, exactly; rising to 1 about two sigma within.

    A Gaussian blur of a mask is one half on a straight edge. Twice its excess over one half is thus a ramp that starts
    at the edge, inside. The picture's own border counts as mask where the mask reaches it: no ramp there.
    """
    if sigma <= 0:
        return mask.astype(np.float32)
    return np.where(mask, np.clip(2 * blur(mask, sigma) - 1, 0, 1), 0).astype(np.float32)


def keep_away(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Weight [F,H,W] float32 that is 0 on a bool mask, exactly, and rises to 1 about two sigma outside of it."""
    return feather_inside(~mask, sigma)


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur [F,H,W(,C)] -> float32; the border is repeated."""
    import cv2

    size = 2 * int(np.ceil(3 * sigma)) + 1
    return np.stack(
        [
            cv2.GaussianBlur(image.astype(np.float32), (size, size), sigma, borderType=cv2.BORDER_REPLICATE)
            for image in images
        ]
    )
