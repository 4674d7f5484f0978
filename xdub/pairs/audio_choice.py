"""Which speech V' gets: another utterance of the same speaker (paper B.3), decided by (seed, clip id) alone."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from xdub.data.clip import SAMPLES_PER_FRAME
from xdub.seeding import rng

SAME_SPEAKER = "same-speaker"
OTHER_SPEAKER = "other-speaker"
OWN_SHIFTED = "own-shifted"
CANDIDATES = 4


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """What the choice needs to know of a clip."""

    clip_id: str
    speaker: str
    num_frames: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The clip whose speech is taken, the sample it starts at, and the rule that found it."""

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
        """Speech for ``target``, best first; the first that is not the same recording is to be taken.

        1. Other utterances of the same speaker (long enough ones, if there are any).
        2. The speaker has no other: those of other speakers that are most similar in length.
        3. Last of all its own, moved by half its length: in a data set of one utterance there is no other speech.
        """
        draw = rng("pair-audio", seed, target.clip_id)
        same = [u for u in self._by_speaker[target.speaker] if u.clip_id != target.clip_id]
        long_enough = [u for u in same if u.num_frames >= target.num_frames]
        found = [(u, SAME_SPEAKER) for u in _some(long_enough or same, draw)]
        found += [(u, OTHER_SPEAKER) for u in _some(self._alike(target), draw)]
        choices = [
            Choice(clip_id=u.clip_id, start=_start(u.num_frames - target.num_frames, draw), rule=rule)
            for u, rule in found
        ]
        half = target.num_frames // 2 * SAMPLES_PER_FRAME
        return [*choices, Choice(clip_id=target.clip_id, start=half, rule=OWN_SHIFTED)]

    def _alike(self, target: Utterance, near: int = 16) -> list[Utterance]:
        """Other speakers' utterances that miss the target's length by least."""
        place = bisect_left(self._lengths, target.num_frames)
        around = self._by_length[max(0, place - near) : place + near]
        # One speaker may fill the neighbourhood: look everywhere then.
        others = [u for u in around if u.speaker != target.speaker] or [
            u for u in self._by_length if u.speaker != target.speaker
        ]
        least = min((abs(u.num_frames - target.num_frames) for u in others), default=0)
        return [u for u in others if abs(u.num_frames - target.num_frames) == least]


def cut_audio(audio: np.ndarray, start: int, num_frames: int) -> np.ndarray:
    """float32 [640 num_frames] from sample ``start`` on; speech that is too short begins again."""
    index = (start + np.arange(num_frames * SAMPLES_PER_FRAME)) % len(audio)
    return audio[index].astype(np.float32)


def _some(utterances: list[Utterance], draw: np.random.Generator) -> list[Utterance]:
    order = draw.permutation(len(utterances))[:CANDIDATES]
    return [utterances[int(n)] for n in order]


def _start(spare: int, draw: np.random.Generator) -> int:
    return int(draw.integers(max(0, spare) + 1)) * SAMPLES_PER_FRAME
