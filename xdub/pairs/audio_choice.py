"""Choice of the speech of V': another utterance of the same speaker (paper B.3), decided by seed and clip id only."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from xdub.data.sound import MARGIN_SAMPLES
from xdub.geometry import SAMPLES_PER_FRAME
from xdub.seeding import rng

SAME_SPEAKER = "same-speaker"
OTHER_SPEAKER = "other-speaker"
OWN_SHIFTED = "own-shifted"
"""Names of the rules of a choice in the ledger."""
CANDIDATES = 4
"""Largest number of choices by each rule."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """Facts of a clip that the choice depends on."""

    clip_id: str
    speaker: str
    num_frames: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The clip whose speech is used, the audio sample it starts at, and the rule that selected it."""

    clip_id: str
    start: int
    rule: str


class SpeechIndex:
    """All utterances of a data set, by speaker and by length. A choice takes the time of a few searches."""

    def __init__(self, utterances: Iterable[Utterance]) -> None:
        self._by_length = sorted(utterances, key=_order)
        self._by_speaker: dict[str, list[Utterance]] = defaultdict(list)
        for utterance in self._by_length:
            self._by_speaker[utterance.speaker].append(utterance)
        self._of_others = lru_cache(maxsize=8)(self._of_others)

    def choices(self, target: Utterance, seed: int) -> list[Choice]:
        """Return choices of speech for ``target``, best first; the caller uses the first of a different recording.

        1. Other utterances of the same speaker, only those of sufficient length if there are any.
        2. Utterances of other speakers that are most similar in length.
        3. The clip's own speech, shifted by half its length, for data sets of one utterance.
        """
        draw = rng("pair-audio", seed, target.clip_id)
        selected = [(u, SAME_SPEAKER) for u in self._draw_same(target, draw)]
        alike = self._alike(target)
        selected += [(alike[n], OTHER_SPEAKER) for n in _draw(len(alike), draw)]
        choices = [
            Choice(clip_id=u.clip_id, start=_start(u.num_frames - target.num_frames, draw), rule=rule)
            for u, rule in selected
        ]
        half = target.num_frames // 2 * SAMPLES_PER_FRAME
        return [*choices, Choice(clip_id=target.clip_id, start=half, rule=OWN_SHIFTED)]

    def _draw_same(self, target: Utterance, draw: np.random.Generator) -> list[Utterance]:
        """Draw other utterances of the target's speaker, without a list of them all."""
        own = self._by_speaker.get(target.speaker, [])
        position = bisect_left(own, _order(target), key=_order)
        present = position < len(own) and own[position].clip_id == target.clip_id
        # Those of sufficient length are the last ones, and the target is among them.
        first = bisect_left(own, target.num_frames, key=_length)
        if len(own) - first - present == 0:
            first = 0
        numbers = [first + n for n in _draw(len(own) - first - present, draw)]
        return [own[n + (present and n >= position)] for n in numbers]

    def _alike(self, target: Utterance, near: int = 16) -> Sequence[Utterance]:
        """Return the utterances of other speakers whose length is closest to the target's."""
        index = bisect_left(self._by_length, target.num_frames, key=_length)
        around = self._by_length[max(0, index - near) : index + near]
        # One speaker may fill the neighbourhood; then search all utterances.
        others = [u for u in around if u.speaker != target.speaker] or self._of_others(target.speaker)
        if not others:
            return []
        index = bisect_left(others, target.num_frames, key=_length)
        ends = others[max(0, index - 1) : index + 1]
        least = min(abs(u.num_frames - target.num_frames) for u in ends)
        lengths = sorted({target.num_frames - least, target.num_frames + least})
        return [u for length in lengths for u in others[_first(others, length) : _first(others, length + 1)]]

    def _of_others(self, speaker: str) -> list[Utterance]:
        return [u for u in self._by_length if u.speaker != speaker]


def cut_audio(sound: np.ndarray, start: int, num_frames: int) -> np.ndarray:
    """Cut float32 [640 (num_frames + 50)]: speech from sample ``start`` on, with the second before and after it.

    ``sound`` is `Clip.sound`, whose speech lies between two such seconds. Speech that is too short is repeated.
    """
    own = sound[MARGIN_SAMPLES : len(sound) - MARGIN_SAMPLES]
    samples = num_frames * SAMPLES_PER_FRAME
    if start + samples <= len(own):
        return sound[start : start + samples + 2 * MARGIN_SAMPLES].copy()
    times = start + np.arange(-MARGIN_SAMPLES, samples + MARGIN_SAMPLES)
    return np.where(times < 0, sound[np.minimum(times, 0) + MARGIN_SAMPLES], own[times % len(own)])


def _draw(count: int, draw: np.random.Generator) -> list[int]:
    """Draw at most `CANDIDATES` different numbers below a count."""
    return draw.permutation(count)[:CANDIDATES].tolist()


def _order(utterance: Utterance) -> tuple[int, str]:
    return utterance.num_frames, utterance.clip_id


def _length(utterance: Utterance) -> int:
    return utterance.num_frames


def _first(utterances: Sequence[Utterance], length: int) -> int:
    """Return the position of the first utterance of at least a length among sorted ones."""
    return bisect_left(utterances, length, key=_length)


def _start(spare: int, draw: np.random.Generator) -> int:
    return int(draw.integers(max(0, spare) + 1)) * SAMPLES_PER_FRAME
