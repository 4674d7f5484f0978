"""Does the mouth rest when nobody speaks? Read opening under silent audio, relative to a resting mouth.

The paper names lip motion in silence a form of leakage (1, 3.1.2). Unit: inner-lip gap / eye distance, as the
readout gives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rest_opening(read: Sequence[np.ndarray], truth: Sequence[np.ndarray], quantile: float = 0.1) -> float:
    """What the readout says on true frames of a closed mouth: mean over the frames in the lowest ``quantile``
    of true opening.

    Taken over all clips together, so that it depends on no single face. ``read`` and ``truth`` are lists of
    [F].
    """
    values, opening = np.concatenate(list(read)), np.concatenate(list(truth))
    ok = np.isfinite(values) & np.isfinite(opening)
    if not ok.any():
        return float("nan")
    return float(values[ok][opening[ok] <= np.quantile(opening[ok], quantile)].mean())


def silence_opening(read_silent: Sequence[np.ndarray], rest: float) -> float:
    """Mean over clips of mean read opening [F] of videos dubbed with silence, minus ``rest``; 0 is a resting
    mouth.
    """
    clips = [float(np.nanmean(r)) for r in read_silent if np.isfinite(r).any()]
    return float(np.mean(clips)) - rest if clips else float("nan")
