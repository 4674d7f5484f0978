"""Choice of the face that speaks, in every shot with several faces.

The measure compares the opening of a mouth with the loudness of the voice. It is light and weaker than a SyncNet: it
separates a speaker from a listener, and two moving mouths of rendered heads in 99 of 100 cases. Its name in rows is
``lip_voice``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xdub.geometry import SAMPLES_PER_FRAME
from xdub.media.stored_sound import StoredSound
from xdub.perception.faces import FaceTrack, bridge_gaps
from xdub.perception.mouth import mouth_opening
from xdub.perception.other_faces import OtherFace

MOTION = 0.05
"""Standard deviation of a speaking mouth's opening, in eye distances; a listener's is about 0.01."""
QUIETEST = 1e-4
"""Level of sound below which all sounds count as equally quiet."""
LAG = 6
"""Largest offset of sound and lips in frames at which both are compared; the check of the offset comes later."""
LEAST_FRAMES = 25
"""Fewest frames with a face for which a mouth is compared with the voice."""
PART = 1024
"""Frames whose sound is in memory at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SpeakerTrack:
    """The track of the faces that speak."""

    track: FaceTrack
    faces: np.ndarray
    """[F] int, number of faces that were compared in the frame's shot"""
    lead: np.ndarray
    """[F] float32, lead in `lip_voice` of the chosen face over the next one; nan in shots with one face"""


def follow_speaker(
    track: FaceTrack, others: Sequence[OtherFace], audio: np.ndarray | StoredSound
) -> SpeakerTrack:
    """Replace the tracked face by the speaking face, shot by shot.

    Args:
        track: the most prominent face.
        others: the other faces, each within one shot.
        audio: [N] at 16 kHz.
    """
    count = len(track)
    voice = loudness(audio, count)
    result = replace(track, landmarks68=track.landmarks68.copy(), detected=track.detected.copy())
    if track.bounds is not None:
        result = replace(result, bounds=track.bounds.copy())
    faces, lead = np.ones(count, int), np.full(count, np.nan, np.float32)
    starts = [0, *np.flatnonzero(track.cuts).tolist(), count]
    for start, end in zip(starts, starts[1:], strict=False):
        shot = slice(start, end)
        rivals = [
            face for face in others if start <= face.start < end and len(face.landmarks) >= LEAST_FRAMES
        ]
        if not rivals:
            continue
        points = [
            track.landmarks68[shot],
            *(_spread(face.landmarks, face.start, start, end) for face in rivals),
        ]
        values = [lip_voice(landmarks, voice[shot]) for landmarks in points]
        best = int(np.argmax(values))
        faces[shot] = len(values)
        lead[shot] = values[best] - max(value for n, value in enumerate(values) if n != best)
        if best > 0:
            _replace(result, rivals[best - 1], start, end)
    return SpeakerTrack(track=result, faces=faces, lead=lead)


def lip_voice(landmarks: np.ndarray, voice: np.ndarray) -> float:
    """Score how well a mouth matches a voice: its motion, up to 1, plus its correlation with the loudness.

    Args:
        landmarks: [F, 68, 2] px; nan without a face.
        voice: [F], see `loudness`.
    """
    opening = mouth_opening(landmarks)
    valid = np.isfinite(opening)
    if valid.sum() < LEAST_FRAMES:
        return 0.0
    motion = min(1.0, float(opening[valid].std()) / MOTION)
    best = 0.0
    for lag in range(-LAG, LAG + 1):
        heard = np.full(len(voice), np.nan)
        low, high = max(0, -lag), len(voice) - max(0, lag)
        heard[low:high] = voice[low + lag : high + lag]
        both = valid & np.isfinite(heard)
        a, b = opening[both], heard[both]
        if len(a) >= LEAST_FRAMES // 2 and a.std() > 1e-6 and b.std() > 1e-6:
            best = max(best, float(np.corrcoef(a, b)[0, 1]))
    return motion + best


def loudness(audio: np.ndarray | StoredSound, count: int) -> np.ndarray:
    """Return the logarithm [F] of the level of the first ``count`` frames of a wave [N], which may be shorter."""
    levels = np.zeros(count, np.float32)
    # A part at a time, because a long recording is on disk.
    for begin in range(0, count, PART):
        frames = min(PART, count - begin)
        wave = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
        part = audio[begin * SAMPLES_PER_FRAME : (begin + frames) * SAMPLES_PER_FRAME]
        wave[: len(part)] = part
        levels[begin : begin + frames] = wave.reshape(frames, SAMPLES_PER_FRAME).std(axis=1)
    return np.log10(levels + QUIETEST)


def _spread(values: Sequence[np.ndarray], first: int, start: int, end: int) -> np.ndarray:
    """Return rows that begin at frame ``first`` as an array for the frames [start, end), nan where there are none."""
    out = np.full((end - start, *values[0].shape), np.nan, np.float32)
    rows = np.stack(values)[: end - first]
    out[first - start : first - start + len(rows)] = rows
    return out


def _replace(track: FaceTrack, face: OtherFace, start: int, end: int) -> None:
    """Write a face into the frames [start, end) of a track, one shot; short gaps are interpolated."""
    shot, no_cuts = slice(start, end), np.zeros(end - start, bool)
    points = _spread(face.landmarks, face.start, start, end)
    track.detected[shot] = np.isfinite(points).all(axis=(1, 2))
    track.landmarks68[shot] = bridge_gaps(points, no_cuts)
    if track.bounds is not None:
        bounds = _spread(face.bounds, face.start, start, end)
        track.bounds[shot] = bridge_gaps(bounds[..., None], no_cuts)[..., 0]
