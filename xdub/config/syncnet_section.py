"""Section `syncnet` of a recipe: the SyncNet that `xdub train syncnet` trains. All its keys have defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from xdub.config.checks import POSITIVE, SHARE
from xdub.geometry import CodecGeometry

TRAIN_DEFAULTS: Mapping[str, Any] = {
    "steps": 20_000,
    "global_batch": 256,
    "micro_batch": 32,
    "lr": 5.0e-4,
    "warmup": 500,
    "precision": "fp32",
    "zero_stage": 0,
    "ema": 0.999,
    "lr_schedule": "cosine",
    "checkpoint_every": 500,
    "activation_checkpointing": "none",
    "sample_every": 0,
    "sequence_parallel": 1,
    "base_dtype": None,
    "offload": "none",
    "latents": "live",
    "window_stride": 1,
}
"""Fields of `train` for a SyncNet, which is much smaller than the recipe's model, has no frozen layers, and reads
pixels."""

OWN_MEANS = (
    "activation_checkpointing",
    "sequence_parallel",
    "base_dtype",
    "offload",
    "latents",
    "window_stride",
)
"""Fields that save memory or time of the recipe's model: a setting of section `train` leaves them as they are for a
SyncNet."""


@dataclass(frozen=True, kw_only=True)
class SyncNetConfig:
    """Sizes, samples and training of a SyncNet; fields of `train` that it overrides are among its own keys."""

    size: Annotated[int, POSITIVE] = 128
    """Side of the lower face in px, e.g. 64, 128 or 256."""
    frames: Annotated[int, POSITIVE] = 16
    """Frames of a window. A shorter video, such as the 13 frames of the lip phase, is one window."""
    width: Annotated[int, POSITIVE] = 32
    """Channels of the first layer; deeper layers have up to eight times as many."""
    embed_dim: Annotated[int, POSITIVE] = 128
    """Length of one frame's vector."""
    window: Annotated[int, POSITIVE] = 25
    """Frames of one training sample, shortened to whole latents and to `video.clip_frames`."""
    clips: Annotated[int, POSITIVE] = 8
    """Clips whose sounds are compared with one another; micro batches must be multiples."""
    codec_share: Annotated[float, SHARE] = 0.5
    """Share of samples whose pictures pass through the recipe's codec, whose blur must not count as bad lips."""
    held_out: Annotated[float, SHARE] = 0.05
    """Share of the clips that are kept for the accuracy, whole speakers where possible."""
    jitter: Annotated[float, SHARE] = 0.04
    """Largest shift and scaling of the lower face's box, as a share of its side."""
    train: Mapping[str, Any] = field(default_factory=lambda: dict(TRAIN_DEFAULTS))
    """Fields of `train` that this section overrides."""

    def failed_checks(self, path: str) -> Iterator[str]:
        """Yield a message for every rule that a check of one value cannot express."""
        if self.size < 16 or self.size & (self.size - 1):
            yield f"{path}.size={self.size} is not a power of two of at least 16"
        if self.width % 4:
            yield f"{path}.width={self.width} is not a multiple of 4"

    def window_of(self, geometry: CodecGeometry, clip_frames: int) -> int:
        """Return the frames of one training sample."""
        return geometry.longest(min(self.window, clip_frames))
