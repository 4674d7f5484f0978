"""What a phase hands to the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """One loss of a micro batch, on the n samples that it acts on: all, or e.g. the silent ones."""

    mean: Tensor
    """Scalar."""
    per_sample: Tensor
    """[n] value of each sample, detached."""
    t: Tensor
    """[n] its timestep."""


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """The losses of one micro batch: the differentiable sum that is minimised, and what is tracked."""

    total: Tensor
    terms: Mapping[str, LossTerm]
    """By name: flow, sync, identity, clip, as far as they act on a sample of this batch."""
