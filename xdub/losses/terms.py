"""Result of a phase's loss function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """One loss of a micro batch on the n samples that it acts on: all samples, or e.g. the silent samples."""

    mean: Tensor
    """Scalar mean over the n samples, differentiable."""
    per_sample: Tensor
    """[n] value of each sample, detached."""
    t: Tensor
    """[n] timestep of each sample."""


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """Losses of one micro batch: the differentiable sum that is minimised, and the terms that are tracked."""

    total: Tensor
    terms: Mapping[str, LossTerm]
    """Terms by name (flow, sync, identity, clip); a term is absent if it acts on no sample of the batch."""
