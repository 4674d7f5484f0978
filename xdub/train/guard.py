"""What is done with a batch whose loss is not finite or explodes: skip it; if that does not help, go back and around.

A skipped batch is no step: weights, moments and average stay as they are, the data move on. After `train.max_skips` of
them in a row the weights themselves are suspected: the run goes back to its last checkpoint and continues with the
samples that come after the bad ones. Both are decided from the losses of all ranks, so every rank decides the same, and
a resumed run decides as the first one did.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any

WINDOW = 64
"""Losses that make the median."""
WARM = 16
"""Losses below which nothing is known of what is usual."""


class Guard:
    """Judges losses of global batches. Its state is plain numbers, kept in checkpoints."""

    def __init__(self, spike_factor: float, state: dict[str, Any] | None = None) -> None:
        """``spike_factor``: a loss above so many medians explodes; 0 = none does."""
        state = state or {}
        self._factor = spike_factor
        self._recent: deque[float] = deque(state.get("recent", ()), maxlen=WINDOW)
        self.skipped_in_a_row: int = state.get("skipped_in_a_row", 0)

    def objection(self, loss: float) -> str | None:
        """Why this loss must not be learned from, or None."""
        if not math.isfinite(loss):
            return "the loss is not finite"
        if self._factor and len(self._recent) >= WARM:
            usual = statistics.median(self._recent)
            if loss > self._factor * usual:
                return f"the loss is {loss / usual:.1f} times the usual {usual:.4g}"
        return None

    def accept(self, loss: float) -> None:
        """A step was made."""
        self._recent.append(loss)
        self.skipped_in_a_row = 0

    def skip(self) -> None:
        """None was made."""
        self.skipped_in_a_row += 1

    def state(self) -> dict[str, Any]:
        return {"recent": list(self._recent), "skipped_in_a_row": self.skipped_in_a_row}
