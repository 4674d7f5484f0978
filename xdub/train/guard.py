"""Guard against losses that are not finite or explode: skip the batch, and after several in a row roll back.

A skipped batch does not count as a step: weights, moments and average stay unchanged, and the position in the data
advances. After `train.max_skips` in a row the weights themselves are suspect, so the run loads its last checkpoint and
continues with the samples after the bad ones. Both decisions use the losses of all ranks, so every rank decides the
same, and a resumed run repeats them.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any

WINDOW = 64
"""Number of latest losses whose median is the reference."""
WARM = 16
"""Losses to collect before any can count as a spike."""


class Guard:
    """Decision by its loss whether a batch may be learned from. The state is plain numbers, kept in checkpoints."""

    def __init__(self, spike_factor: float, state: dict[str, Any] | None = None) -> None:
        """``spike_factor``: a loss above this multiple of the median counts as a spike; 0 switches the test off."""
        state = state or {}
        self._factor = spike_factor
        self._recent: deque[float] = deque(state.get("recent", ()), maxlen=WINDOW)
        self.skipped_in_a_row: int = state.get("skipped_in_a_row", 0)
        """Batches skipped since the last accepted loss."""

    def objection(self, loss: float) -> str | None:
        """Return the reason why a step must not learn from this loss, or None."""
        if not math.isfinite(loss):
            return "the loss is not finite"
        if self._factor and len(self._recent) >= WARM:
            usual = statistics.median(self._recent)
            if loss > self._factor * usual:
                return f"the loss is {loss / usual:.1f} times the usual {usual:.4g}"
        return None

    def accept(self, loss: float) -> None:
        """Record the loss of an applied step and reset the skip counter."""
        self._recent.append(loss)
        self.skipped_in_a_row = 0

    def skip(self) -> None:
        """Count one skipped batch."""
        self.skipped_in_a_row += 1

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"recent": list(self._recent), "skipped_in_a_row": self.skipped_in_a_row}
