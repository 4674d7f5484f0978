"""Accuracy of a SyncNet by the offset of sound and picture, and its share of right choices."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xdub.perception.syncnet.base import MAX_OFFSET, SyncExpert, audible

LEAST_OFFSET = 4
"""Smallest offset, in frames, that counts as out of sync; closer windows share most of their sound."""


@dataclass(frozen=True, kw_only=True)
class SyncAccuracy:
    """Accuracy on windows whose sound is known.

    Lists have an entry for each offset of 0 ... 15 frames, early and late together.
    """

    windows: int
    in_sync: list[float]
    """Share of windows that the network judges in sync."""
    preferred: list[float]
    """Share of windows whose own sound fits better than the moved one; entry 0 compares with another clip's sound.
    Chance is 0.5."""
    best_offset: float
    """Share of windows whose best offset within 15 frames is at most 1. Chance is 3 of 31."""

    @property
    def accuracy(self) -> list[float]:
        """Share of right judgements: in sync at offset 0, out of sync at the others."""
        return [share if offset == 0 else 1 - share for offset, share in enumerate(self.in_sync)]

    @property
    def choice(self) -> float:
        """Share of right choices between a window's own sound and foreign or moved sound (by at least 4 frames)."""
        shares = [self.preferred[0], *self.preferred[LEAST_OFFSET:]]
        finite = [share for share in shares if math.isfinite(share)]
        return sum(finite) / len(finite) if finite else math.nan


@dataclass
class AccuracyMeter:
    """Sums over batches of windows."""

    network: SyncExpert
    _in_sync: list[Tensor] = field(default_factory=list)
    _preferred: list[Tensor] = field(default_factory=list)
    _foreign: list[Tensor] = field(default_factory=list)
    _near: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def add(self, frames: Tensor, sound: Tensor, landmarks: Tensor) -> None:
        """Measure videos [B, 3, F, H, W] with their sound and landmarks; see `SyncExpert`."""
        picture = self.network.embed_video(frames, landmarks)
        heard = self.network.embed_sound(sound, MAX_OFFSET)
        # [B, W, 2 x 15 + 1]
        cosines = torch.einsum("bwe,bweo->bwo", picture, heard.unfold(1, 2 * MAX_OFFSET + 1, 1)).float()
        present = audible(sound, self.network.frames, MAX_OFFSET).unfold(1, 2 * MAX_OFFSET + 1, 1)
        present = present & present[..., MAX_OFFSET : MAX_OFFSET + 1]
        own = cosines[..., MAX_OFFSET]
        # The BCE of a match that is as likely as not is log 2.
        judged = self.network.loss_of(cosines) < math.log(2)
        self._in_sync.append(_by_distance(judged.float(), present))
        self._preferred.append(_by_distance(_larger(own[..., None], cosines), present))
        best = (cosines.masked_fill(~present, -math.inf).argmax(-1) - MAX_OFFSET).abs()
        heard_now = present[..., MAX_OFFSET]
        self._near.append((best <= 1)[heard_now].float().cpu())
        if len(picture) > 1:
            aligned = heard[:, MAX_OFFSET : heard.shape[1] - MAX_OFFSET]
            foreign = (picture * aligned.roll(1, 0)).sum(-1).float()
            self._foreign.append(_larger(own, foreign)[heard_now & heard_now.roll(1, 0)].cpu())

    def result(self) -> SyncAccuracy:
        """Return the accuracy on everything that was added, at least one video."""
        preferred = torch.cat(self._preferred).nanmean(0).tolist()
        preferred[0] = torch.cat(self._foreign).mean().item() if self._foreign else math.nan
        return SyncAccuracy(
            windows=sum(len(near) for near in self._near),
            in_sync=torch.cat(self._in_sync).nanmean(0).tolist(),
            preferred=preferred,
            best_offset=torch.cat(self._near).mean().item(),
        )


def _larger(own: Tensor, other: Tensor) -> Tensor:
    """Return 1 where ``own`` is larger, 0.5 where both are equal, else 0."""
    return (own > other).float() + (own == other).float() / 2


def _by_distance(values: Tensor, present: Tensor) -> Tensor:
    """Return values [B, W, 2 x 15 + 1] as [2 B W, 16] by distance, early and late; nan where nothing is present."""
    measured = torch.where(present, values, math.nan)
    late, early = measured[..., MAX_OFFSET:], measured[..., : MAX_OFFSET + 1].flip(-1)
    return torch.cat([late.flatten(0, 1), early.flatten(0, 1)]).cpu()
