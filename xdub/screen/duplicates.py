"""Search for clips that show the same footage, over a whole data set and in time proportional to it.

Words of sound that few clips share lead to candidates, and every candidate is compared bit by bit where both overlap:
sound and pictures must agree. Copies may be encoded again, resized, louder, and cut at other frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xdub.screen.footprint import WORDS_PER_FRAME, Footprint, differing_bits

SELECTED = 8
"""One in so many words leads to candidates; the choice depends on the word alone, so copies choose the same words."""
COMMON = 20
"""Most occurrences of a word of which all pairs are candidates. Of words such as hum, whose pairs would grow as a
square, every occurrence is paired with the next one only; many copies of one clip are still linked that way."""
PLAIN = 5
"""Words with fewer bits of one kind than this come from silence."""
MOST_BITS = 0.35
"""Largest share of differing bits of sound: copies have 0.02 to 0.3 with noise, other speech 0.45 to 0.55."""
MOST_PICTURE_BITS = 14
"""Largest mean number of differing bits of 64 of the pictures."""
LEAST_OVERLAP = 0.5
"""Least overlap of two clips relative to the shorter one."""


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """A clip that shows the footage of an earlier one."""

    clip: int
    """Number of the clip."""
    of: int
    """Number of the earlier clip, which is itself no duplicate."""
    value: float
    """Share of equal bits of sound where both overlap."""


def find_duplicates(footprints: Sequence[Footprint]) -> list[Duplicate]:
    """Return the clips that repeat an earlier clip, in ascending order."""
    words, clips, positions = _index(footprints)
    originals: dict[int, tuple[int, float]] = {}
    for first, second, shift in _candidates(words, clips, positions):
        value = same_footage(footprints[first], footprints[second], shift)
        if value is not None:
            # The candidates come in ascending order of `second`, so `first` is settled.
            root = originals.get(first, (first, 0.0))[0]
            if second not in originals or root < originals[second][0]:
                originals[second] = (root, value)
    return [Duplicate(clip=clip, of=of, value=value) for clip, (of, value) in sorted(originals.items())]


def same_footage(a: Footprint, b: Footprint, shift: int) -> float | None:
    """Return the share of equal bits of sound if two clips show the same footage, else None.

    ``shift`` is the word of ``a`` at which ``b`` begins; it may be negative.
    """
    start, end = max(0, shift), min(len(a.sound), len(b.sound) + shift)
    if end - start < LEAST_OVERLAP * min(len(a.sound), len(b.sound)) or end <= start:
        return None
    different = differing_bits(a.sound[start:end], b.sound[start - shift : end - shift]).mean() / 32
    if different > MOST_BITS:
        return None
    # Pictures that are one frame apart look alike.
    frames = round(shift / WORDS_PER_FRAME)
    first, last = max(0, frames), min(len(a.pictures), len(b.pictures) + frames)
    if last <= first:
        return None
    pictures = differing_bits(a.pictures[first:last], b.pictures[first - frames : last - frames]).mean()
    return float(1 - different) if pictures <= MOST_PICTURE_BITS else None


def _index(footprints: Sequence[Footprint]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the selected words with their clips and positions, sorted by word."""
    words, clips, positions = [], [], []
    for clip, one in enumerate(footprints):
        bits = np.bitwise_count(one.sound)
        picked = np.flatnonzero((_mixed(one.sound) % SELECTED == 0) & (bits >= PLAIN) & (bits <= 32 - PLAIN))
        words.append(one.sound[picked])
        clips.append(np.full(len(picked), clip, np.int64))
        positions.append(picked)
    if not words:
        return (np.zeros(0, np.uint32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    joined = [np.concatenate(part) for part in (words, clips, positions)]
    order = np.argsort(joined[0], kind="stable")
    return joined[0][order], joined[1][order], joined[2][order]


def _candidates(words: np.ndarray, clips: np.ndarray, positions: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (earlier clip, later clip, shift) of clips that share a rare word, ordered by the later clip.

    Each occurrence of a word has at most `COMMON` partners, so the list is at most `COMMON` times as long as the index.
    """
    pairs: set[tuple[int, int, int]] = set()
    starts = np.flatnonzero(np.concatenate([[True], words[1:] != words[:-1]])[: len(words)])
    ends = np.append(starts[1:], len(words))[: len(starts)]
    shared = ends - starts > 1
    for start, end in zip(starts[shared], ends[shared], strict=True):
        for i in range(start, end):
            last = end if end - start <= COMMON else min(end, i + 2)
            for j in range(i + 1, last):
                if clips[i] != clips[j]:
                    pairs.add((int(clips[i]), int(clips[j]), int(positions[i] - positions[j])))
    return sorted(pairs, key=lambda pair: (pair[1], pair[0], pair[2]))


def _mixed(words: np.ndarray) -> np.ndarray:
    """Return words whose low bits depend on all bits."""
    mixed = words.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return mixed >> np.uint64(40)
