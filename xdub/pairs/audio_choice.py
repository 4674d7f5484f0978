"""Choice of the speech of V': another utterance of the same speaker (paper B.3), decided by seed and clip id only."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """Facts of a clip that the choice depends on."""

    clip_id: str
    speaker: str
    num_frames: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The clip whose speech is used, the audio sample it starts at, and the rule that selected it."""

    clip_id: str
    start: int
    rule: str


class SpeechIndex:
    """All utterances of a data set, by speaker and by length."""

    def __init__(self, utterances: Iterable[Utterance]) -> None:
        self._by_speaker: dict[str, list[Utterance]] = defaultdict(list)
        for utterance in sorted(utterances, key=lambda u: (u.num_frames, u.clip_id)):
            self._by_speaker[utterance.speaker].append(utterance)
        everyone = sorted((u.num_frames, u.clip_id, u) for us in self._by_speaker.values() for u in us)
        self._by_length = [u for _, _, u in everyone]
        self._lengths = [u.num_frames for u in self._by_length]

    def choices(self, target: Utterance, seed: int) -> list[Choice]:
        """Return choices of speech for ``target``, best first; the caller uses the first of a different recording.

        1. Other utterances of the same speaker, only those of sufficient length if there are any.
        2. Utterances of other speakers that are most similar in length.
        3. The clip's own speech, shifted by half its length, for data sets of one utterance.
        """
        draw = rng("pair-audio", seed, target.clip_id)
        same = [u for u in self._by_speaker[target.speaker] if u.clip_id != target.clip_id]
        long_enough = [u for u in same if u.num_frames >= target.num_frames]
        selected = [(u, SAME_SPEAKER) for u in _draw(long_enough or same, draw)]
        selected += [(u, OTHER_SPEAKER) for u in _draw(self._alike(target), draw)]
        choices = [
            Choice(clip_id=u.clip_id, start=_start(u.num_frames - target.num_frames, draw), rule=rule)
            for u, rule in selected
        ]
        half = target.num_frames // 2 * SAMPLES_PER_FRAME
        return [*choices, Choice(clip_id=target.clip_id, start=half, rule=OWN_SHIFTED)]

    def _alike(self, target: Utterance, near: int = 16) -> list[Utterance]:
        """Return the utterances of other speakers whose length is closest to the target's."""
        index = bisect_left(self._lengths, target.num_frames)
        around = self._by_length[max(0, index - near) : index + near]
        # One speaker may fill the neighbourhood; then search all utterances.
        others = [u for u in around if u.speaker != target.speaker] or [
            u for u in self._by_length if u.speaker != target.speaker
        ]
        least = min((abs(u.num_frames - target.num_frames) for u in others), default=0)
        return [u for u in others if abs(u.num_frames - target.num_frames) == least]


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


def _draw(utterances: list[Utterance], draw: np.random.Generator) -> list[Utterance]:
    order = draw.permutation(len(utterances))[:CANDIDATES]
    return [utterances[int(n)] for n in order]


def _start(spare: int, draw: np.random.Generator) -> int:
    return int(draw.integers(max(0, spare) + 1)) * SAMPLES_PER_FRAME
