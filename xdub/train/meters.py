"""Means between two log lines, and the loss by noise band."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from xdub.losses.terms import LossTerms

T_BINS = 10
Sums = dict[str, tuple[float, int]]
"""name -> (sum, count)"""


@dataclass
class Meters:
    """Running sums; plain numbers, so that a checkpoint can hold them."""

    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, sums: Sums) -> None:
        for name, (total, count) in sums.items():
            entry = self.sums.setdefault(name, [0.0, 0])
            entry[0] += total
            entry[1] += count

    def take(self) -> dict[str, float]:
        """Means, in name order; the sums start again."""
        means = {name: total / count for name, (total, count) in sorted(self.sums.items()) if count}
        self.sums = {}
        return means


def loss_sums(terms: LossTerms) -> Sums:
    """The losses of one micro batch under their tracked names, whole and by band of t.

    A loss that acts on some samples only counts for so many: its mean over batches and ranks is one over samples.
    """
    sums: Sums = {}
    for name, term in terms.terms.items():
        values = term.per_sample.tolist()
        sums[f"loss/{name}"] = (float(term.mean.detach()) * len(values), len(values))
        for t, value in zip(term.t.tolist(), values, strict=True):
            band = f"loss/{name}/t_bin_{min(int(t * T_BINS), T_BINS - 1)}"
            total, count = sums.get(band, (0.0, 0))
            sums[band] = (total + value, count + 1)
    return sums


def peak_memory(device: torch.device) -> dict[str, float]:
    """Most memory this process has held so far, GB: of the machine, and of its GPU if it has one."""
    peaks = {"perf/memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
    if device.type == "cuda":
        peaks["perf/gpu_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return peaks


@dataclass
class RankStep:
    """What one rank tells the others about its share of a step."""

    losses: list[float] = field(default_factory=list)
    """Of its micro batches."""
    sums: Sums = field(default_factory=dict)
    sample_ids: list[str] = field(default_factory=list)
    epoch: int = 0
    data_wait: float = 0.0
    peaks: dict[str, float] = field(default_factory=dict)
    """Of `peak_memory`."""
    stop: bool = False
    bad: dict[str, Any] = field(default_factory=dict)
    """clip id -> why it was replaced (`xdub.data.quarantine.BadRow`)"""

    def add(self, terms: LossTerms, batch: dict[str, Any]) -> None:
        self.bad = batch["bad"] | self.bad
        self.losses.append(float(terms.total.detach()))
        self.sample_ids += batch["sample_id"]
        self.epoch = int(batch["epochs"].max())
        for name, (total, count) in loss_sums(terms).items():
            old = self.sums.get(name, (0.0, 0))
            self.sums[name] = (old[0] + total, old[1] + count)


@dataclass
class GlobalStep:
    """A step over all ranks."""

    loss: float
    sums: Sums
    sample_ids: list[str]
    epoch: int
    data_wait: float
    peaks: dict[str, float]
    """Of the rank that needs most."""
    stop: bool
    bad: dict[str, Any]

    @classmethod
    def merge(cls, ranks: Iterable[RankStep]) -> GlobalStep:
        """Sums in rank order: the same numbers, to the bit, on every rank."""
        ranks = list(ranks)
        losses = [loss for rank in ranks for loss in rank.losses]
        total = Meters()
        for rank in ranks:
            total.add(rank.sums)
        return cls(
            loss=math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.nan,
            sums={name: (value, int(count)) for name, (value, count) in total.sums.items()},
            sample_ids=[sample for rank in ranks for sample in rank.sample_ids],
            epoch=max(rank.epoch for rank in ranks),
            data_wait=max(rank.data_wait for rank in ranks),
            peaks={name: max(rank.peaks[name] for rank in ranks) for name in ranks[0].peaks},
            stop=any(rank.stop for rank in ranks),
            bad={clip_id: why for rank in ranks for clip_id, why in rank.bad.items()},
        )
