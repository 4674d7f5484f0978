"""Learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from xdub.errors import UserError

FINAL_SHARE = 0.05
"""Share of the peak rate at which a cosine ends, so that the last steps still learn."""


def lr_at(step: int, *, peak: float, warmup: int, total: int, schedule: str) -> float:
    """Return the rate of optimizer step ``step`` (0-based): linear warm-up, then ``constant`` or ``cosine``."""
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    if schedule != "cosine":
        raise UserError(f"train.lr_schedule={schedule!r}: use 'cosine' or 'constant'")
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done)))
