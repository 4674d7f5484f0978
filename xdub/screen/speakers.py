"""Grouping of clips by speaker: face and voice of every clip against the speakers known so far.

A clip joins a speaker only if face and voice both agree, because each alone confuses some people. Clips of a recording
are compared with its own speakers first, at thresholds that are lower by `SAME_RECORDING`, because it shows few people.
A clip is compared with all speakers only if it begins a recording or shows a new face in it, so the cost is that of
recordings times speakers, and not the square of clips.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

SAME_RECORDING = 0.1
"""Reduction of both thresholds among the clips of one recording."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Likeness:
    """Face and voice of one clip as unit vectors; a part that could not be measured is nan."""

    clip_id: str
    recording: str
    """Name of the file that the clip was cut from."""
    face: np.ndarray
    voice: np.ndarray


@dataclass(eq=False)
class SpeakerGroups:
    """Speakers as sums of their clips' vectors."""

    face_threshold: float
    """Least cosine of a face with its speaker's mean face."""
    voice_threshold: float
    """Least cosine of a voice with its speaker's mean voice."""
    names: list[str] = field(default_factory=list)
    """Name of each speaker: `speaker-` and the id of its first clip."""
    _faces: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    _voices: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    _by_recording: dict[str, list[int]] = field(default_factory=dict)

    def add(self, one: Likeness) -> int:
        """Return the number of the clip's speaker, which may be a new one."""
        recording = self._by_recording.setdefault(one.recording, [])
        speaker = self._best(one, np.array(recording, int), SAME_RECORDING)
        if speaker is None:
            speaker = self._best(one, np.arange(len(self.names)))
        if speaker is None:
            speaker = self._start(one)
        else:
            self._faces[speaker] += np.nan_to_num(one.face)
            self._voices[speaker] += np.nan_to_num(one.voice)
        if speaker not in recording:
            recording.append(speaker)
        return speaker

    def _best(self, one: Likeness, candidates: np.ndarray, allowance: float = 0.0) -> int | None:
        """Return the candidate whose face and voice are most alike, if both are alike enough."""
        if not len(candidates) or not np.isfinite(one.face).all() or not np.isfinite(one.voice).all():
            # Without both parts a clip is never joined with another.
            return None
        if not self._faces.shape[1] or not self._voices.shape[1]:
            # No speaker has been measured so far.
            return None
        faces = _cosines(self._faces[candidates], one.face)
        voices = _cosines(self._voices[candidates], one.voice)
        alike = (faces >= self.face_threshold - allowance) & (voices >= self.voice_threshold - allowance)
        if not alike.any():
            return None
        return int(candidates[np.argmax(np.where(alike, faces + voices, -np.inf))])

    def _start(self, one: Likeness) -> int:
        count = len(self.names)
        self._faces = _with_row(self._faces, count, one.face)
        self._voices = _with_row(self._voices, count, one.voice)
        self.names.append(f"speaker-{one.clip_id}")
        return count


def group_speakers(
    clips: Iterable[Likeness], *, face_threshold: float, voice_threshold: float
) -> dict[str, str]:
    """Return clip id -> speaker for clips in their order; earlier clips keep their speakers when clips are added."""
    groups = SpeakerGroups(face_threshold=face_threshold, voice_threshold=voice_threshold)
    numbers = {one.clip_id: groups.add(one) for one in clips}
    return {clip_id: groups.names[number] for clip_id, number in numbers.items()}


def _cosines(sums: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return the cosines [C] of sums of vectors [C, D] with a unit vector [D]; 0 for an empty sum."""
    return sums @ vector / np.maximum(np.linalg.norm(sums, axis=1), 1e-9)


def _with_row(sums: np.ndarray, count: int, vector: np.ndarray) -> np.ndarray:
    """Return sums [C, D] with a vector in row ``count``, enlarged if they have no such row.

    The row of an unmeasured vector is 0. The first measured vector decides D, because an unmeasured vector may have
    another length.
    """
    measured = bool(np.isfinite(vector).all())
    length = len(vector) if measured and not sums.shape[1] else sums.shape[1]
    if count == len(sums) or length != sums.shape[1]:
        # Doubling keeps the cost of copies proportional to the number of speakers.
        larger = np.zeros((max(1, 2 * len(sums)) if count == len(sums) else len(sums), length))
        larger[: len(sums), : sums.shape[1]] = sums
        sums = larger
    if measured:
        sums[count] = vector
    return sums
