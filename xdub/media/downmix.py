"""One channel from any number of channels, without a loss of speech."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

EMPTY = 1e-6
"""Energy relative to the loudest channel below which a channel is empty (60 dB)."""
BLOCK = 0.05
"""Seconds of sound over which two channels are compared."""
CANCELLED = 0.16
"""Energy of the mean relative to the louder channel's below which a block of stereo counts as cancelled (8 dB)."""
INVERTED = -0.6
"""Correlation of two channels below which one is an inverted copy of the other."""
COPY = 0.2
"""Correlation above which both channels hold the same sound."""
RUN = 3
"""Number of loud blocks in a row that must be cancelled, because single blocks of ordinary stereo are, too."""
BAND = 1000
"""Inverse of half the length in seconds of the filter for the comparison, which passes about 100 to 800 Hz."""
RAMP = 0.01
"""Seconds of the change from a sum to a difference."""
SIDES = ("FL", "FR", "FLC", "FRC")
"""Channels at 0.7 of a centre channel; all others are at 0.5, as in the usual downmix of 5.1."""
UNNAMED = {5: 2, 6: 2, 7: 2, 8: 2}
"""Index of the centre in a number of channels without names, as players assume."""


@dataclass
class _Layout:
    """Sums over the samples of one layout of channels; products are those of a band of speech, without hum and hiss."""

    names: list[str]
    rate: int
    energy: np.ndarray = field(init=False)
    """float64 [C], energy of each channel."""
    products: np.ndarray = field(init=False)
    """float64 [C, C], sum of the products of each two channels."""
    blocks: list[np.ndarray] = field(default_factory=list)
    """[n, 3] of stereo: energy left, energy right and their product in each block."""
    rest: np.ndarray = field(init=False)
    """[n, C], samples that the next block needs."""
    peak: float = 0.0

    def __post_init__(self) -> None:
        count = len(self.names)
        self.energy, self.products = np.zeros(count), np.zeros((count, count))
        # Half the length of the filter, in samples.
        self._half = max(1, round(self.rate / BAND))
        self.block = max(1, round(BLOCK * self.rate))
        self.rest = np.zeros((2 * self._half, count), np.float32)

    def add(self, samples: np.ndarray) -> None:
        """Add samples [n, C]."""
        self.peak = max(self.peak, float(np.abs(samples).max()))
        self.energy += np.square(samples, dtype=np.float64).sum(axis=0)
        self.rest = np.concatenate([self.rest, samples])
        whole = (len(self.rest) - 2 * self._half) // self.block * self.block
        if whole <= 0:
            return
        sums = np.cumsum(self.rest[: whole + 2 * self._half], axis=0, dtype=np.float64)
        self.rest = self.rest[whole:]
        late, middle, early = sums[2 * self._half :], sums[self._half : -self._half], sums[: -2 * self._half]
        band = late - 2 * middle + early
        if len(self.names) == 2:
            left, right = band.reshape(-1, self.block, 2).transpose(2, 0, 1)
            products = [(left**2).sum(axis=1), (right**2).sum(axis=1), (left * right).sum(axis=1)]
            self.blocks.append(np.stack(products, axis=1))
        else:
            self.products += band.T @ band

    def plan(self) -> np.ndarray | None:
        """Return a weight for each channel [C], or for each block and channel [n, 2]; None stands for the mean."""
        # Zeros complete the last block.
        self.add(np.zeros((self.block - 1, len(self.names)), np.float32))
        if len(self.names) == 2:
            return _stereo(np.concatenate(self.blocks)) if self.blocks else None
        return _many(self.energy, self.products, self.names)


class Downmix:
    """Mixes the channels of a file, which is read twice if the mean of its channels would lose speech.

    The mean is right for ordinary mono and stereo. An empty channel does not count, an inverted copy is turned, and a
    centre channel leads. Memory holds three numbers for each block of ``BLOCK`` seconds.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._layouts: dict[str, _Layout] = {}
        self._plans: dict[str, np.ndarray | None] | None = None
        self._position: dict[str, int] = {}

    @property
    def peak(self) -> float:
        """Largest sample of any channel."""
        return max((layout.peak for layout in self._layouts.values()), default=0.0)

    def again(self) -> bool:
        """Return True if the file must be read again, and mix by weights from now on."""
        self._plans = {name: layout.plan() for name, layout in self._layouts.items()}
        return any(plan is not None for plan in self._plans.values())

    def mono(self, piece: AudioFrame) -> np.ndarray:
        """Return the samples [n] of an interleaved float frame."""
        name = piece.layout.name
        # The format is interleaved, because PyAV handles at most eight planes and reads beyond them.
        samples = piece.to_ndarray().reshape(-1, piece.layout.nb_channels)
        if self._plans is None:
            if samples.shape[1] > 1:
                if name not in self._layouts:
                    names = [channel.name for channel in piece.layout.channels]
                    self._layouts[name] = _Layout(names, self._rate)
                self._layouts[name].add(samples)
            return samples.mean(axis=1, dtype=np.float32)
        plan, begin = self._plans.get(name), self._position.get(name, 0)
        self._position[name] = begin + len(samples)
        if plan is None:
            return samples.mean(axis=1, dtype=np.float32)
        if plan.ndim == 1:
            return (samples @ plan).astype(np.float32)
        block, ramp = max(1, round(BLOCK * self._rate)), max(1.0, RAMP * self._rate)
        moments = np.arange(begin, begin + len(samples))
        now = np.minimum(moments // block, len(plan) - 1)
        share = np.minimum(1.0, (moments - now * block) / ramp)[:, None]
        weights = plan[np.maximum(now - 1, 0)] * (1 - share) + plan[now] * share
        return (samples * weights).sum(axis=1, dtype=np.float64).astype(np.float32)


def _stereo(blocks: np.ndarray) -> np.ndarray | None:
    """Return the weights of two channels from their energies and products [n, 3]; None stands for the mean."""
    left, right, product = blocks.T
    totals = np.array([left.sum(), right.sum()])
    if not np.isfinite(totals).all() or totals.max() == 0:
        return None
    if totals.min() < EMPTY * totals.max():
        return (totals == totals.max()).astype(np.float64)
    energy = np.maximum(left, right)
    loud = energy > 1e-4 * np.quantile(energy, 0.95)
    correlation = product / np.maximum(np.sqrt(left * right), 1e-30)
    cancelled = loud & (correlation < INVERTED) & ((left + right + 2 * product) / 4 < CANCELLED * energy)
    evidence = np.where(cancelled, -energy, np.where(loud & (correlation > COPY), energy, 0.0))
    # A block follows its neighbours, and a block without evidence follows the block before.
    signs = np.sign(np.convolve(evidence, np.ones(3), mode="same"))
    certain = np.flatnonzero(signs)
    if certain.size == 0:
        return None
    before = np.searchsorted(certain, np.arange(len(signs)), side="right") - 1
    signs = signs[certain[np.maximum(before, 0)]]
    # A run that is too short for evidence keeps the sum.
    edges = np.flatnonzero(np.diff(signs, prepend=1.0, append=1.0))
    for begin, end in edges.reshape(-1, 2):
        if cancelled[begin:end].sum() < RUN:
            signs[begin:end] = 1.0
    if (signs > 0).all():
        return None
    return np.stack([np.full(len(signs), 0.5), 0.5 * signs], axis=1)


def _many(energy: np.ndarray, products: np.ndarray, names: list[str]) -> np.ndarray | None:
    """Return the weights of three or more channels [C] from their energies and products; None stands for the mean."""
    if not np.isfinite(energy).all() or energy.max() == 0:
        return None
    named = "FC" in names or "FL" in names
    centre = names.index("FC") if "FC" in names else None if named else UNNAMED.get(len(names))
    if centre is None:
        weights = np.sqrt(energy / energy.max())
    else:
        sides = [name in SIDES or (not named and n < centre) for n, name in enumerate(names)]
        weights = np.where(sides, 0.7, 0.5)
        weights[centre] = 1.0
    weights[energy < EMPTY * energy.max()] = 0.0
    weights /= weights.max() if centre is not None else weights.sum()
    power = np.diagonal(products)
    correlation = products / np.sqrt(np.maximum(np.outer(power, power), 1e-30))
    order = np.argsort(-power, kind="stable")
    signs = np.ones(len(names))
    for n, channel in enumerate(order[1:], start=1):
        others = correlation[channel, order[:n]] * signs[order[:n]]
        if others[np.abs(others).argmax()] < INVERTED:
            signs[channel] = -1.0
    return weights * signs
