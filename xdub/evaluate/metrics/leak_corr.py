"""Do the lips still follow the *old* speech? Correlation of the read opening with the source video's own
opening.

Old and new speech correlate by chance in a short clip (both open and close a few times in two seconds), so a
perfect dub shows a raw correlation with the old speech too. ``unique`` therefore correlates the readout with
that part of the old opening that the new opening does not explain (a semi-partial correlation: the old is
regressed on the new, per clip, and the residual is used). ``partial`` also removes the new opening from the
readout; it magnifies what is left of a good dub and is reported for completeness, as is ``raw``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xdub.evaluate.metrics.opening_corr import finite_mean, pearson


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Means over clips; 0 is no leak, 1 is a copy of the source's lips."""

    unique: float
    raw: float
    partial: float
    chance: float
    """Correlation of the two true openings with each other: what ``raw`` shows for a perfect dub."""
    per_clip: tuple[float, ...]
    """``unique`` of every clip."""


def residual(series: np.ndarray, given: np.ndarray) -> np.ndarray:
    """``series`` [F] minus its least-squares fit by ``given`` [F] and a constant; nan frames of either stay
    nan.
    """
    series, given = np.asarray(series, dtype=np.float64), np.asarray(given, dtype=np.float64)
    ok = np.isfinite(series) & np.isfinite(given)
    out = np.full(len(series), np.nan)
    if not ok.any():
        return out
    centred = given[ok] - given[ok].mean()
    power = centred @ centred
    slope = centred @ series[ok] / power if power > 1e-20 else 0.0
    left = series[ok] - series[ok].mean() - slope * centred
    # A remainder at rounding level is no movement: exactly zero, so that no correlation is made of it.
    out[ok] = np.where(np.abs(left).max() <= 1e-9 * (1e-12 + np.abs(series[ok]).max()), 0.0, left)
    return out


def leak_corr(read: Sequence[np.ndarray], old: Sequence[np.ndarray], new: Sequence[np.ndarray]) -> Leak:
    """Lists of [F] per clip: the readout of the dubbed frames, the true opening of the source, of the new
    speech.
    """
    clips = list(zip(read, old, new, strict=True))
    unique = tuple(pearson(r, residual(o, n)) for r, o, n in clips)
    return Leak(
        unique=finite_mean(unique),
        raw=finite_mean([pearson(r, o) for r, o, _ in clips]),
        partial=finite_mean([pearson(residual(r, n), residual(o, n)) for r, o, n in clips]),
        chance=finite_mean([pearson(o, n) for _, o, n in clips]),
        per_clip=unique,
    )
