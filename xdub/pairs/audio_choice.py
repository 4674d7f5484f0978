"""Which speech V' gets: another utterance of the same speaker (paper B.3), decided by (seed, clip id) alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xdub.data.clip import SAMPLES_PER_FRAME
from xdub.seeding import rng

SAME_SPEAKER = "same-speaker"
OTHER_SPEAKER = "other-speaker"
OWN_SHIFTED = "own-shifted"


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """What the choice needs to know of a clip's sound."""

    clip_id: str
    speaker: str
    num_frames: int
    digest: str
    """Of the samples: equal speech in another clip is not other speech."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The clip whose speech is taken, the sample it starts at, and which rule found it."""

    clip_id: str
    start: int
    rule: str


def audio_digest(audio: np.ndarray) -> str:
    """16 hex digits of the samples float32 [N]."""
    return hashlib.sha256(np.ascontiguousarray(audio, "<f4")).hexdigest()[:16]


def choose_audio(target: Utterance, all_utterances: Sequence[Utterance], seed: int) -> Choice:
    """Speech for ``target``.

    1. Another utterance of the same speaker (one that is long enough, if there is any).
    2. The speaker has none: another speaker's, of the most similar length.
    3. There is no other speech at all: its own, moved by half its length.
    """
    draw = rng("pair-audio", seed, target.clip_id)
    others = sorted((u for u in all_utterances if u.digest != target.digest), key=lambda u: u.clip_id)
    same = [u for u in others if u.speaker == target.speaker]
    if same:
        enough = [u for u in same if u.num_frames >= target.num_frames]
        chosen, rule = _pick(enough or same, draw), SAME_SPEAKER
    elif others:
        nearest = min(abs(u.num_frames - target.num_frames) for u in others)
        alike = [u for u in others if abs(u.num_frames - target.num_frames) == nearest]
        chosen, rule = _pick(alike, draw), OTHER_SPEAKER
    else:
        return Choice(clip_id=target.clip_id, start=target.num_frames // 2 * SAMPLES_PER_FRAME, rule=OWN_SHIFTED)
    spare = max(0, chosen.num_frames - target.num_frames)
    return Choice(clip_id=chosen.clip_id, start=int(draw.integers(spare + 1)) * SAMPLES_PER_FRAME, rule=rule)


def cut_audio(audio: np.ndarray, start: int, num_frames: int) -> np.ndarray:
    """float32 [640 num_frames] from sample ``start`` on; speech that is too short begins again."""
    index = (start + np.arange(num_frames * SAMPLES_PER_FRAME)) % len(audio)
    return audio[index].astype(np.float32)


def _pick(utterances: Sequence[Utterance], draw: np.random.Generator) -> Utterance:
    return utterances[int(draw.integers(len(utterances)))]
