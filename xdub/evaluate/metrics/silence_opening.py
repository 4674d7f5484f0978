"""Mouth opening under silent audio, relative to a resting mouth.

The paper names lip motion in silence a form of leakage (1, 3.1.2). The unit is that of the readout: inner-lip gap / eye
distance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xdub.evaluate.metric import Figure, Metric, keep


def rest_opening(read: Sequence[np.ndarray], truth: Sequence[np.ndarray], quantile: float = 0.1) -> float:
    """Return the mean reading on true frames of a closed mouth: those in the lowest ``quantile`` of true opening.

    The quantile is that of all clips together, so that it depends on no single face. ``read`` and ``truth`` are lists
    of [F]. The result is nan if no frame has both.
    """
    values, opening = np.concatenate(list(read)), np.concatenate(list(truth))
    ok = np.isfinite(values) & np.isfinite(opening)
    if not ok.any():
        return float("nan")
    return float(values[ok][opening[ok] <= np.quantile(opening[ok], quantile)].mean())


def silence_opening(read_silent: Sequence[np.ndarray], rest: float) -> float:
    """Return the mean over clips of the mean read opening [F] of videos dubbed with silence, minus ``rest``.

    0 is a resting mouth; nan means that no clip has a reading.
    """
    clips = [float(np.nanmean(r)) for r in read_silent if np.isfinite(r).any()]
    return float(np.mean(clips)) - rest if clips else float("nan")


def speaking_opening(read: Sequence[np.ndarray], rest: float) -> float:
    """Return how far a speaking mouth opens beyond ``rest``: 95th percentile of the readings [F], mean over clips."""
    return float(np.mean([np.nanpercentile(r, 95) for r in read])) - rest


def _figure(clips: Sequence[tuple[np.ndarray, ...]]) -> Figure:
    silent, read, truth = zip(*clips, strict=True)
    rest = rest_opening(read, truth)
    value, speaking = silence_opening(silent, rest), speaking_opening(read, rest)
    share = value / speaking if speaking > 0 else float("nan")
    return Figure(value=value, details={"silence_share": share})


SILENCE_OPENING = Metric(
    name="silence_opening",
    label="Mouth opening in silence",
    meaning="read opening under silent audio minus that of closed mouths, in eye distances",
    better="zero",
    needs=("silent_reading", "reference_reading", "new_opening"),
    compute=keep,
    combine=_figure,
)
"""Opening of the mouth while the new audio is silent; 0 is a resting mouth."""
