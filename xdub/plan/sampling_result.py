"""Result of the plan of pair making or of dubbing."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from xdub.plan.gpus import Gpu


@dataclass(frozen=True, kw_only=True)
class SamplingMemory:
    """Bytes on one GPU."""

    weights: float
    """Backbone with all experts, in its training precision; of offloaded blocks two."""
    frozen_networks: float
    """Codec, audio encoder and pair filters."""
    conditions: float
    """Conditions of all windows of a batch and the state of a continued decoder, alive during all steps."""
    working: float
    """Largest temporary bytes: of one evaluation, of encoding or of decoding."""
    reserve: float
    """Memory outside of tensors, see `xdub.plan.memory.RESERVE`."""

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(asdict(self).values())


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """Resources of pair making or dubbing, in bytes, seconds, FLOPs and US dollars."""

    name: str
    """`pairs` or `dubbing`."""
    gpus: int
    gpu: Gpu
    precision: str
    """Precision of the backbone."""
    frames: int
    """Frames of a window."""
    batch: int
    """Windows that are sampled together."""
    evaluations: int
    """Evaluations of the backbone for a window; guidance evaluates three branches."""
    hours_of_video: float
    """Hours of video that are generated."""
    windows: float
    """Windows of these hours."""
    window_flops: dict[str, float]
    """FLOPs of one window, by part."""
    window_seconds: float
    """Seconds of one window on one GPU at the assumed efficiency."""
    memory: SamplingMemory
    fits: bool
    cost: float

    @property
    def gpu_hours(self) -> float:
        """Hours that one GPU needs."""
        return self.windows * self.window_seconds / 3600

    @property
    def hours(self) -> float:
        """Hours that all GPUs need."""
        return self.gpu_hours / self.gpus

    @property
    def gpus_for_a_day(self) -> int:
        """GPUs that finish within 24 hours."""
        return max(1, math.ceil(self.gpu_hours / 24))
