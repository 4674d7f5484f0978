"""Leak of the *old* speech: correlation of the read mouth opening with the source's own opening.

Old and new speech correlate by chance in a short clip (both open and close a few times in two seconds), so a
perfect dub shows a raw correlation with the old speech too. ``unique`` therefore correlates the readout with
that part of the old opening that the new opening does not explain (a semi-partial correlation: the old opening is
regressed on the new one, per clip, and the residual is used). ``partial`` also removes the new opening from the
readout; it magnifies small remainders of a good dub and is reported for completeness, as is ``raw``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xdub.evaluate.metric import Figure, Metric, keep
from xdub.evaluate.metrics.opening_corr import finite_mean, pearson


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Means over clips; 0 is no leak, 1 is a copy of the source's lips."""

    unique: float
    """Correlation with the part of the old opening that the new opening does not explain."""
    raw: float
    """Plain correlation with the old opening."""
    partial: float
    """Correlation of both after the new opening was removed from both."""
    chance: float
    """Correlation of the two true openings with each other: what ``raw`` shows for a perfect dub."""
    per_clip: tuple[float, ...]
    """``unique`` of every clip."""


def residual(series: np.ndarray, regressor: np.ndarray) -> np.ndarray:
    """Return ``series`` [F] minus its least-squares fit by ``regressor`` [F] and a constant.

    Frames that are nan in either series stay nan.
    """
    series, regressor = np.asarray(series, dtype=np.float64), np.asarray(regressor, dtype=np.float64)
    ok = np.isfinite(series) & np.isfinite(regressor)
    out = np.full(len(series), np.nan)
    if not ok.any():
        return out
    centred = regressor[ok] - regressor[ok].mean()
    power = centred @ centred
    slope = centred @ series[ok] / power if power > 1e-20 else 0.0
    remainder = series[ok] - series[ok].mean() - slope * centred
    # A remainder at rounding level is no movement: it becomes exactly zero, so that it has no correlation.
    is_rounding = np.abs(remainder).max() <= 1e-9 * (1e-12 + np.abs(series[ok]).max())
    out[ok] = np.where(is_rounding, 0.0, remainder)
    return out


def leak_corr(read: Sequence[np.ndarray], old: Sequence[np.ndarray], new: Sequence[np.ndarray]) -> Leak:
    """Measure the leak over a set of clips.

    Each argument is a list of [F] per clip: ``read`` from the dubbed frames, ``old`` the true opening of the source,
    ``new`` that of the new speech.
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


def _leak(clips: Sequence[tuple[np.ndarray, ...]]) -> Leak:
    read, old, new = zip(*clips, strict=True)
    return leak_corr(read, old, new)


def _figure(clips: Sequence[tuple[np.ndarray, ...]]) -> Figure:
    leak = _leak(clips)
    finer = {"raw": leak.raw, "partial": leak.partial, "chance": leak.chance, "per_clip": leak.per_clip}
    return Figure(value=leak.unique, details={LEAK_CORR.name: finer})


def _remark(details: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the plain correlations with the old speech, and that of a perfect dub of these clips."""
    leaks = [model[LEAK_CORR.name] for model in details.values()]
    plain = " and ".join(f"{leak['raw']:+.3f}" for leak in leaks)
    return f"plain correlation {plain}; the two true speeches have {leaks[-1]['chance']:+.3f} by chance"


LEAK_CORR = Metric(
    name="leak_corr",
    label="Leak of the old speech",
    meaning="correlation with the part of the source's own opening that the new speech does not explain",
    better="zero",
    needs=("opening", "old_opening", "new_opening"),
    compute=keep,
    combine=_figure,
    remark=_remark,
)
"""Correlation with the old speech alone; 0 is no leak, 1 is a copy of the source's lips."""

RAW_LEAK_CORR = Metric(
    name="raw_leak_corr",
    label="Correlation with the old speech",
    meaning="plain correlation with the source's own opening, chance included",
    better="zero",
    needs=LEAK_CORR.needs,
    compute=keep,
    combine=lambda clips: Figure(value=_leak(clips).raw),
)
"""Plain correlation with the old speech."""
