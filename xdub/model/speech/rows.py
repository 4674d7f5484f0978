"""Division of a recording into inputs of a network, and rows of features that are computed when they are read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from xdub.geometry import ROWS_PER_FRAME, SAMPLES_PER_FRAME

HOP = SAMPLES_PER_FRAME // ROWS_PER_FRAME
"""Audio samples of one feature row: 320, 50 rows a second."""
FIELD = 400
"""Samples that one row of wav2vec2 and HuBERT hears before its attention; no sound is shorter for an encoder."""
KEPT = 2
"""Number of inputs whose rows stay in memory: a window may span two, and windows move forward."""


@dataclass(frozen=True)
class Input:
    """One input of a network: it begins at row ``start``, and its rows keep ... stop - 1 are used."""

    start: int
    keep: int
    stop: int


def overlapping(rows: int, size: int, margin: int) -> list[Input]:
    """Divide rows into inputs of ``size`` rows that overlap by twice the margin; the last input ends with the rows.

    ``margin`` rows (or a quarter of an input, if that is less) of real sound surround every row that is used, except at
    the ends of the recording.
    """
    margin = min(margin, size // 4)
    inputs, start, keep = list[Input](), 0, 0
    while start + size < rows:
        inputs.append(Input(start, keep, start + size - margin))
        keep = start + size - margin
        start = min(keep - margin, rows - size)
    return [*inputs, Input(start, keep, rows)]


class Rows(Protocol):
    """Rows of a recording's features."""

    count: int
    """Number of rows; at least 1."""

    def read(self, start: int, stop: int) -> Tensor:
        """Return float32 [stop - start, d] on the CPU, the rows start ... stop - 1."""


class InputRows:
    """Rows of one network; memory holds the rows of the last `KEPT` inputs.

    Args:
        count: number of rows. Rows that the network does not have repeat its last row.
        inputs: inputs in order, whose used rows follow one another without a gap.
        encode: function that returns the used rows of an input, float32 [stop - keep, d] on the CPU.
    """

    def __init__(self, count: int, inputs: Sequence[Input], encode: Callable[[Input], Tensor]) -> None:
        self.count = count
        self._inputs, self._encode = inputs, encode
        self._kept: OrderedDict[Input, Tensor] = OrderedDict()

    def read(self, start: int, stop: int) -> Tensor:
        """Return the rows start ... stop - 1."""
        existing = self._inputs[-1].stop
        rows = torch.arange(start, stop).clamp(max=existing - 1)
        low, high = int(rows[0]), int(rows[-1]) + 1
        parts = [
            self._rows_of(part)[max(low - part.keep, 0) : high - part.keep]
            for part in self._inputs
            if part.keep < high and low < part.stop
        ]
        return torch.cat(parts)[rows - low]

    def _rows_of(self, part: Input) -> Tensor:
        if part not in self._kept:
            # The oldest rows leave before the new ones are computed, so the two do not add up.
            while len(self._kept) >= KEPT:
                self._kept.popitem(last=False)
            self._kept[part] = self._encode(part)
        self._kept.move_to_end(part)
        return self._kept[part]


class JoinedRows:
    """Rows of several networks, concatenated in their order."""

    def __init__(self, sources: Sequence[Rows]) -> None:
        self._sources, self.count = sources, sources[0].count

    def read(self, start: int, stop: int) -> Tensor:
        """Return the rows start ... stop - 1."""
        return torch.cat([source.read(start, stop) for source in self._sources], dim=1)


def row_count(samples: int) -> int:
    """Return the number of rows of a recording of ``samples`` samples."""
    return max(1, round(samples / HOP))


def all_rows(rows: Rows) -> Tensor:
    """Return all rows of a recording at once, [T, d]."""
    return rows.read(0, rows.count)


def audible(wav: np.ndarray) -> np.ndarray:
    """Return float32 [N] with silence behind a wave that is shorter than the field of one row."""
    wav = np.asarray(wav, dtype=np.float32)
    return wav if len(wav) >= FIELD else np.pad(wav, (0, FIELD - len(wav)))
