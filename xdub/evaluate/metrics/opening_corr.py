"""Agreement of the lips with the *new* speech: Pearson correlation over time of mouth opening with its truth.

The correlation is computed inside each clip and then averaged, so a constant error of the readout on a face
does not change it. A second correlation ("pooled") is computed over the frames of all clips together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xdub.evaluate.metric import Figure, Metric, keep


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
    """Return Pearson's r of two [F] series over the frames where both are finite.

    It is nan if either series is constant or fewer than 3 frames remain. ValueError: the series differ in length.
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
    """Correlate read openings with true openings, both lists of [F], per clip and pooled."""
    per_clip = tuple(pearson(r, t) for r, t in zip(read, truth, strict=True))
    return Correlation(
        mean=finite_mean(per_clip),
        pooled=pearson(np.concatenate(list(read)), np.concatenate(list(truth))) if read else float("nan"),
        per_clip=per_clip,
    )


def finite_mean(values: Sequence[float]) -> float:
    """Return the mean of the finite values; nan if there are none."""
    kept = [v for v in values if np.isfinite(v)]
    return float(np.mean(kept)) if kept else float("nan")


def _figure(clips: Sequence[tuple[np.ndarray, ...]]) -> Figure:
    read, truth = zip(*clips, strict=True)
    result = opening_corr(read, truth)
    details = {"pooled": result.pooled, "per_clip": result.per_clip}
    return Figure(value=result.mean, details={OPENING_CORR.name: details})


OPENING_CORR = Metric(
    name="opening_corr",
    label="Lips follow the new speech",
    meaning="correlation over time of the read mouth opening with the truth",
    better="higher",
    needs=("opening", "new_opening"),
    compute=keep,
    combine=_figure,
)
"""Correlation of the mouth's opening with that of the new speech; 1 is perfect."""

OPENING_CORR_READOUT = Metric(
    name="opening_corr_readout",
    label="Lips follow the new speech, read by the network",
    meaning="correlation over time of the openings that the mouth network reads in video and reference",
    better="higher",
    needs=("reading", "reference_reading"),
    compute=keep,
    combine=lambda clips: Figure(value=_figure(clips).value),
)
"""The same correlation where the packaged network reads both videos."""
