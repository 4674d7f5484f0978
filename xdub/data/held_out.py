"""The clips that a phase keeps for its accuracy: whole speakers, because clips of one recording are near twins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xdub.data.columns import Texts
from xdub.seeding import stable_seed

LEAST = 2
"""Least number of held-out clips, and of clips that remain: an accuracy compares clips."""
MOST = 0.25
"""Largest share of the clips that speakers may take; with fewer and larger speakers single clips are drawn."""


@dataclass(frozen=True)
class HeldOut:
    """Clips that are no samples."""

    items: tuple[int, ...] = ()
    """Numbers of the clips, ascending."""
    by: Literal["speaker", "clip"] = "speaker"
    """Unit of the draw. After a draw by clip, other clips of the same speakers are samples."""


def draw_held_out(ids: Sequence[str], speakers: Sequence[str], share: float) -> HeldOut:
    """Draw about a share of the clips, at least two, by hashes of speakers; return none if too few would remain.

    The draw depends on the names alone, so it is equal for every seed, order of shards and number of workers.
    """
    count = max(LEAST, round(share * len(ids)))
    if len(ids) < count + LEAST:
        return HeldOut()
    codes, names = Texts.of(speakers).codes()
    sizes = np.bincount(codes, minlength=len(names))
    drawn: list[int] = []
    total = 0
    for speaker in sorted(range(len(names)), key=lambda number: stable_seed("held out", names[number])):
        if sizes[speaker] and total + sizes[speaker] <= max(count, MOST * len(ids)):
            drawn.append(speaker)
            total += int(sizes[speaker])
        if total >= count:
            break
    if total >= LEAST:
        return HeldOut(tuple(np.flatnonzero(np.isin(codes, drawn)).tolist()))
    seeds = np.fromiter((stable_seed("held out", clip_id) for clip_id in ids), np.int64, len(ids))
    by_id = np.argsort(seeds, kind="stable")
    return HeldOut(tuple(sorted(by_id[:count].tolist())), "clip")
