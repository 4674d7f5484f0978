"""Peak signal-to-noise ratio per frame, whole or inside a region (paper 4: PSNR; ours: lip box and outside
the mouth).

Values are dB on 8-bit RGB, computed frame by frame and then averaged over frames (not one error pooled over
everything, which is another number). Identical frames count as CAP, so that a mean stays finite.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

CAP = 100.0


def psnr(a: np.ndarray, b: np.ndarray, region: np.ndarray | None = None) -> np.ndarray:
    """[F] dB between two uint8 videos [F,H,W,3]; ``region`` [F,H,W] bool restricts it; nan for frames with an
    empty region.
    """
    if a.shape != b.shape:
        raise ValueError(f"psnr needs equal shapes, got {a.shape} and {b.shape}")
    values = np.full(len(a), np.nan)
    for i, (x, y) in enumerate(zip(a, b, strict=True)):  # one by one: a float copy of a video is large
        square = (x.astype(np.float32) - y.astype(np.float32)) ** 2
        if region is not None:
            square = square[region[i]]
        if square.size:
            mse = float(square.mean(dtype=np.float64))
            values[i] = CAP if mse == 0 else min(CAP, 10 * np.log10(255.0**2 / mse))
    return values


def mean_psnr(pairs: Sequence[np.ndarray]) -> float:
    """Mean over frames, then over clips, of per-frame values [F]; frames without a region do not count."""
    clips = [float(np.nanmean(values)) for values in pairs if np.isfinite(values).any()]
    return float(np.mean(clips)) if clips else float("nan")


def lip_box(landmarks: Sequence[np.ndarray], height: int, width: int, margin: float = 0.3) -> np.ndarray:
    """[F,H,W] bool: per frame, the box around all mouth points 48:68 of the given [F,68,2] tracks, grown by
    ``margin`` of its size.

    Give both the truth's and the source's landmarks: then the box holds the mouth in either, whoever opens it
    wider.
    """
    mouth = np.concatenate([track[:, 48:68] for track in landmarks], axis=1)  # [F, 20k, 2]
    low, high = mouth.min(axis=1), mouth.max(axis=1)
    pad = margin * (high - low).max(axis=1, keepdims=True) / 2
    y, x = np.arange(height)[None, :, None], np.arange(width)[None, None, :]
    low, high = (low - pad)[:, :, None, None], (high + pad)[:, :, None, None]
    return (x >= low[:, 0]) & (x <= high[:, 0]) & (y >= low[:, 1]) & (y <= high[:, 1])  # nan frames: empty


def outside(region: np.ndarray, grow: int) -> np.ndarray:
    """[F,H,W] bool: everything farther than ``grow`` pixels from ``region``, e.g. past the feather of the
    paste-back.
    """
    if not grow:
        return ~region
    return np.stack([_farther(frame, grow) if frame.any() else np.ones_like(frame) for frame in region])


def _farther(frame: np.ndarray, grow: int) -> np.ndarray:
    distance = cv2.distanceTransform((~frame).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance > grow
