"""A SyncNet of the user's own: pictures are compared with their sound, with other moments, and with other clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xdub.config import SyncNetConfig
from xdub.data.batch import SyncBatch
from xdub.losses.terms import LossTerm, LossTerms
from xdub.perception.syncnet.accuracy import LEAST_OFFSET
from xdub.perception.syncnet.base import MAX_OFFSET, audible


@dataclass(frozen=True, kw_only=True)
class SyncNetContext:
    """Arguments of the loss besides model and batch."""

    config: SyncNetConfig


def loss(model: nn.Module, batch: SyncBatch, ctx: SyncNetContext) -> LossTerms:
    """Return the loss of choosing a window's sound among others, and the BCE of judging single pairs.

    ``clips`` neighbours of the batch are compared with one another, so the loss does not depend on the number of
    workers. Other sounds are those of the same clip at offsets of 4 frames or more, and those of the other clips.
    """
    pictures, sounds, scale, bias = model(batch["patches"], batch["sound"], MAX_OFFSET)
    size = ctx.config.clips
    present = audible(batch["sound"], ctx.config.frames, MAX_OFFSET)
    values = [
        _group_loss(
            pictures[i : i + size],
            sounds[i : i + size],
            present[i : i + size],
            _repeated(batch["sample_id"][i : i + size]).to(pictures.device),
            scale,
            bias,
        )
        for i in range(0, len(pictures), size)
    ]
    choice, judge = (torch.cat(parts) for parts in zip(*values, strict=True))
    # A SyncNet has no noise levels.
    t = torch.zeros(len(choice), device=choice.device)
    terms = {
        name: LossTerm(mean=value.mean(), per_sample=value.detach(), t=t)
        for name, value in (("choice", choice), ("judge", judge))
    }
    return LossTerms(total=terms["choice"].mean + terms["judge"].mean, terms=terms)


def _group_loss(
    pictures: Tensor, sounds: Tensor, present: Tensor, repeated: Tensor, scale: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return both losses [G] of G clips with pictures [G, W, E] and sounds [G, W + 2 x 15, E], compared if present and
    not repeated [G, G]."""
    clips, windows, heard = len(pictures), pictures.shape[1], sounds.shape[1]
    # [G W, G heard]
    cosine = rearrange(pictures, "g w e -> (g w) e") @ rearrange(sounds, "g s e -> (g s) e").T
    picture = torch.arange(clips * windows, device=cosine.device)
    sound = torch.arange(clips * heard, device=cosine.device)
    own = (picture // windows) * heard + picture % windows + MAX_OFFSET
    same_clip = (picture // windows)[:, None] == (sound // heard)[None]
    offset = (sound[None] - own[:, None]).abs()
    aligned = same_clip & (offset == 0)
    # Close sounds are neither in sync nor out of it, and silence beyond the ends of a clip is no speech.
    unclear = ~aligned & ((same_clip & (offset < LEAST_OFFSET)) | ~present.flatten()[None])
    unclear = unclear | repeated[picture // windows][:, sound // heard]
    logits = scale * cosine
    clear = logits.masked_fill(unclear, -1e4)
    own_sound = F.cross_entropy(clear, own, reduction="none")
    own_picture = F.cross_entropy(
        clear[:, own].T, torch.arange(len(own), device=own.device), reduction="none"
    )
    positive = F.softplus(-(logits + bias)).gather(1, own[:, None])[:, 0]
    negative = F.softplus(logits + bias)
    moved = _mean(negative, same_clip & ~aligned & ~unclear)
    foreign = _mean(negative, ~same_clip & ~unclear)
    choice, judge = (own_sound + own_picture) / 2, positive + (moved + foreign) / 2
    shape = (clips, windows)
    return choice.unflatten(0, shape).mean(1), judge.unflatten(0, shape).mean(1)


def _repeated(sample_ids: Sequence[str]) -> Tensor:
    """Return bool [G, G], true for two samples of one clip: little data repeats clips, whose sounds may be aligned."""
    same = torch.tensor([[one == other for other in sample_ids] for one in sample_ids])
    return same & ~torch.eye(len(sample_ids), dtype=torch.bool)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average each row of values [P, S] where the mask holds; 0 in rows without such a place."""
    return (values * mask).sum(1) / mask.sum(1).clamp_min(1)
