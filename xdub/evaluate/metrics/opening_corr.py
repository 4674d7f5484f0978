"""Do the lips follow the speech? Pearson correlation over time of read mouth opening with the truth of the
*new* speech.

The correlation is taken inside each clip and then averaged (so that differences between faces, which any
readout has, cannot help), and also once over all frames together ("pooled").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """One comparison over a set of clips."""

    mean: float
    """Mean over clips of the per-clip correlation."""
    pooled: float
    """One correlation over the frames of all clips."""
    per_clip: tuple[float, ...]
    """nan where a clip has no movement to correlate with."""


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two [F] series over the frames where both are finite; nan if either is constant or fewer
    than 3 remain.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"pearson needs two series of one length, got {a.shape} and {b.shape}")
    ok = np.isfinite(a) & np.isfinite(b)
    if ok.sum() < 3:
        return float("nan")
    a, b = a[ok] - a[ok].mean(), b[ok] - b[ok].mean()
    scale = np.sqrt((a @ a) * (b @ b))
    # Below this the "movement" is rounding of the series' own magnitude, and r would be noise.
    return float(np.clip(a @ b / scale, -1, 1)) if scale > 1e-20 else float("nan")


def opening_corr(read: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> Correlation:
    """Per clip and pooled correlation of read openings with true openings, both lists of [F]."""
    per_clip = tuple(pearson(r, t) for r, t in zip(read, truth, strict=True))
    return Correlation(
        mean=finite_mean(per_clip),
        pooled=pearson(np.concatenate(list(read)), np.concatenate(list(truth))) if read else float("nan"),
        per_clip=per_clip,
    )


def finite_mean(values: Sequence[float]) -> float:
    """Mean of the finite values; nan if there are none."""
    kept = [v for v in values if np.isfinite(v)]
    return float(np.mean(kept)) if kept else float("nan")
