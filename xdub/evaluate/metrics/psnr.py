"""Peak signal-to-noise ratio per frame, whole (paper 4) or inside a region (lip box, outside the mouth).

Values are dB on 8-bit RGB, computed frame by frame and then averaged over frames; one error pooled over all frames
would be another number. Identical frames count as CAP, so that a mean stays finite.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from xdub.evaluate.metric import Figure, Metric

CAP = 100.0
"""dB of identical frames."""


def psnr(a: np.ndarray, b: np.ndarray, region: np.ndarray | None = None) -> np.ndarray:
    """Return [F] dB between two uint8 videos [F,H,W,3], inside ``region`` [F,H,W] bool if there is one.

    Frames with an empty region are nan. ValueError: the videos differ in shape.
    """
    if a.shape != b.shape:
        raise ValueError(f"psnr needs equal shapes, got {a.shape} and {b.shape}")
    values = np.full(len(a), np.nan)
    # Frames are compared one by one because a float copy of a video is large.
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        square = (x.astype(np.float32) - y.astype(np.float32)) ** 2
        if region is not None:
            square = square[region[i]]
        if square.size:
            mse = float(square.mean(dtype=np.float64))
            values[i] = CAP if mse == 0 else min(CAP, 10 * np.log10(255.0**2 / mse))
    return values


def mean_psnr(pairs: Sequence[np.ndarray]) -> float:
    """Average per-frame values [F] over frames, then over clips; frames without a region do not count."""
    clips = [float(np.nanmean(values)) for values in pairs if np.isfinite(values).any()]
    return float(np.mean(clips)) if clips else float("nan")


def lip_box(landmarks: Sequence[np.ndarray], height: int, width: int, margin: float = 0.3) -> np.ndarray:
    """Return [F,H,W] bool: per frame, the box around the mouth points 48:68 of all tracks [F,68,2].

    The box is grown by ``margin`` of its size. With the tracks of truth and source, it holds the mouth of both.
    Frames with nan landmarks have an empty box.
    """
    mouth = np.concatenate([track[:, 48:68] for track in landmarks], axis=1)  # [F, 20k, 2]
    low, high = mouth.min(axis=1), mouth.max(axis=1)
    pad = margin * (high - low).max(axis=1, keepdims=True) / 2
    y, x = np.arange(height)[None, :, None], np.arange(width)[None, None, :]
    low, high = (low - pad)[:, :, None, None], (high + pad)[:, :, None, None]
    return (x >= low[:, 0]) & (x <= high[:, 0]) & (y >= low[:, 1]) & (y <= high[:, 1])


def outside(region: np.ndarray, grow: int) -> np.ndarray:
    """Return [F,H,W] bool: all pixels farther than ``grow`` px from ``region``, e.g. past the paste-back's feather."""
    if not grow:
        return ~region
    return np.stack([_farther(frame, grow) if frame.any() else np.ones_like(frame) for frame in region])


def _farther(frame: np.ndarray, grow: int) -> np.ndarray:
    distance = cv2.distanceTransform((~frame).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance > grow


def _figure(clips: Sequence[np.ndarray]) -> Figure:
    return Figure(value=mean_psnr(clips))


def _metric(name: str, label: str, meaning: str, *needs: str) -> Metric[np.ndarray]:
    """Describe the PSNR of two of a clip's videos, inside a region if a third input is named."""
    return Metric(
        name=name, label=label, meaning=meaning, better="higher", unit="dB", digits=2,
        needs=needs, compute=psnr, combine=_figure,
    )  # fmt: skip


PSNR = _metric("psnr", "Frames like the truth", "PSNR against the reference", "video", "reference")
"""PSNR of whole frames against the reference (paper 4)."""
LIP_PSNR = _metric(
    "lip_psnr",
    "Lips like the truth",
    "PSNR in the box around the lips, against the twin that really speaks the new words",
    "video",
    "reference",
    "lips",
)
"""PSNR in the box around the lips against the reference."""
OUTSIDE_PSNR = _metric(
    "outside_psnr",
    "Rest undisturbed",
    "PSNR outside the mouth region against the source, in the finished video",
    "video",
    "source",
    "rest",
)
"""PSNR outside the mouth against the source, after paste-back."""
RAW_OUTSIDE_PSNR = _metric(
    "raw_outside_psnr",
    "Rest undisturbed, before paste-back",
    "the same on the model's raw face crop",
    "raw_video",
    "raw_source",
    "raw_rest",
)
"""PSNR outside the mouth against the source, on the model's own crops."""
