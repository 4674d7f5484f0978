"""The clips that a phase keeps for its accuracy: whole speakers, because clips of one recording are near twins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
    members: dict[str, list[int]] = {}
    for item, speaker in enumerate(speakers):
        members.setdefault(speaker, []).append(item)
    drawn: list[int] = []
    for speaker in sorted(members, key=lambda name: stable_seed("held out", name)):
        if len(drawn) + len(members[speaker]) <= max(count, MOST * len(ids)):
            drawn += members[speaker]
        if len(drawn) >= count:
            break
    if len(drawn) >= LEAST:
        return HeldOut(tuple(sorted(drawn)))
    by_id = sorted(range(len(ids)), key=lambda item: stable_seed("held out", ids[item]))
    return HeldOut(tuple(sorted(by_id[:count])), "clip")
