"""Means between two log lines, and the loss by noise band."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from xdub.data.batch import Samples
from xdub.data.quarantine import BadRow
from xdub.losses.terms import LossTerms
from xdub.tracking.read import BAND, BANDS, LOSSES

Sums = dict[str, tuple[float, int]]
"""name -> (sum, count)"""


@dataclass
class Meters:
    """Running sums; plain numbers, so that a checkpoint can hold them."""

    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, sums: Sums) -> None:
        """Add sums and counts by name."""
        for name, (total, count) in sums.items():
            entry = self.sums.setdefault(name, [0.0, 0])
            entry[0] += total
            entry[1] += count

    def means(self) -> dict[str, float]:
        """Return the means in name order."""
        return {name: total / count for name, (total, count) in sorted(self.sums.items()) if count}

    def reset(self) -> None:
        """Forget all sums."""
        self.sums = {}


def loss_sums(terms: LossTerms) -> Sums:
    """Sum the losses of one micro batch under their tracked names, whole and by band of t.

    A loss that acts on some samples only has their number as its count, so means over batches and ranks are means over
    samples.
    """
    sums: Sums = {}
    for name, term in terms.terms.items():
        values = term.per_sample.tolist()
        sums[f"{LOSSES}{name}"] = (float(term.mean.detach()) * len(values), len(values))
        for t, value in zip(term.t.tolist(), values, strict=True):
            band = f"{LOSSES}{name}{BAND}{min(int(t * BANDS), BANDS - 1)}"
            total, count = sums.get(band, (0.0, 0))
            sums[band] = (total + value, count + 1)
    return sums


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return the peak memory of this process in GB: on the machine, and on its GPU if it has one."""
    peaks = {"perf/memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
    if device.type == "cuda":
        peaks["perf/gpu_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return peaks


@dataclass
class RankStep:
    """One rank's share of a step, in the form that the other ranks receive."""

    losses: list[float] = field(default_factory=list)
    """Loss of each micro batch."""
    sums: Sums = field(default_factory=dict)
    sample_ids: list[str] = field(default_factory=list)
    epoch: int = 0
    data_wait: float = 0.0
    peaks: dict[str, float] = field(default_factory=dict)
    """Result of `peak_memory`."""
    stop: bool = False
    """True after a stop request."""
    bad: dict[str, BadRow] = field(default_factory=dict)
    """clip id -> reason why it was replaced."""

    def add(self, terms: LossTerms, batch: Samples) -> None:
        """Add one micro batch."""
        self.bad = batch["bad"] | self.bad
        self.losses.append(float(terms.total.detach()))
        self.sample_ids += batch["sample_id"]
        self.epoch = int(batch["epochs"].max())
        for name, (total, count) in loss_sums(terms).items():
            old = self.sums.get(name, (0.0, 0))
            self.sums[name] = (old[0] + total, old[1] + count)


@dataclass
class GlobalStep:
    """One step over all ranks."""

    loss: float
    sums: Sums
    sample_ids: list[str]
    epoch: int
    data_wait: float
    peaks: dict[str, float]
    """Largest value over the ranks, by name."""
    stop: bool
    bad: dict[str, BadRow]

    @classmethod
    def merge(cls, ranks: Iterable[RankStep], sequence_parallel: int = 1) -> GlobalStep:
        """Sum in rank order, so that every rank has the same numbers to the bit.

        ``sequence_parallel`` neighbours have the same samples, which count once.
        """
        ranks = list(ranks)
        firsts = ranks[::sequence_parallel]
        losses = [loss for rank in firsts for loss in rank.losses]
        total = Meters()
        for rank in firsts:
            total.add(rank.sums)
        return cls(
            loss=math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.nan,
            sums={name: (value, int(count)) for name, (value, count) in total.sums.items()},
            sample_ids=[sample for rank in firsts for sample in rank.sample_ids],
            epoch=max(rank.epoch for rank in ranks),
            data_wait=max(rank.data_wait for rank in ranks),
            peaks={name: max(rank.peaks[name] for rank in ranks) for name in ranks[0].peaks},
            stop=any(rank.stop for rank in ranks),
            bad={clip_id: row for rank in ranks for clip_id, row in rank.bad.items()},
        )
