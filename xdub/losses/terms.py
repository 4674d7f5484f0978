"""What a phase hands to the trainer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """Scalars of one micro batch (``total`` is differentiable) and what the loss by noise band needs."""

    total: Tensor
    flow: Tensor
    t: Tensor
    """[B] timesteps of the samples."""
    flow_per_sample: Tensor
    """[B] weighted flow loss of each sample, detached."""
    sync: Tensor | None = None
    identity: Tensor | None = None
    clip: Tensor | None = None
