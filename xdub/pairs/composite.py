"""Composite of the generator's output and V: only the face differs from V (paper B.3)."""

from __future__ import annotations

import numpy as np

from xdub.dub.feather import feather_inside, keep_away


def blend_weight(face_mask: np.ndarray, occluder_mask: np.ndarray, sigma: float) -> np.ndarray:
    """Compute M~ [F,H,W] float32 in [0, 1]: the feathered face without its occluders, 0 on every pixel to preserve."""
    weight = feather_inside(face_mask, sigma)
    if occluder_mask.any():
        weight = weight * keep_away(occluder_mask, sigma)
    return weight


def composite(
    original: np.ndarray,
    generated: np.ndarray,
    face_mask: np.ndarray,
    occluder_mask: np.ndarray,
    sigma: float,
) -> np.ndarray:
    """Compute V_post = M~ V_gen + (1 - M~) V_orig, uint8 [F,H,W,3].

    Args:
        original: V, uint8 [F,H,W,3].
        generated: V_gen, uint8 or float32 (0..255) [F,H,W,3].
        face_mask: bool [F,H,W]; V is returned bit for bit outside the face.
        occluder_mask: bool [F,H,W]; V is returned bit for bit on occluders.
        sigma: width of the feathering Gaussian, px of the crop.
    """
    if original.shape != generated.shape:
        raise ValueError(f"original {original.shape} and generated {generated.shape} differ in shape")
    weight = blend_weight(face_mask, occluder_mask, sigma)[..., None]
    mixed = weight * generated.astype(np.float32) + (1 - weight) * original
    return np.where(weight > 0, np.clip(np.rint(mixed), 0, 255), original).astype(np.uint8)
