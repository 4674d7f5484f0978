"""Choice of the face that speaks, in every piece of a shot with several faces.

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
    """[F] int, number of faces that were compared in the frame's piece"""
    lead: np.ndarray
    """[F] float32, lead in `lip_voice` of the chosen face over the next one; nan in pieces with one face"""


def follow_speaker(
    track: FaceTrack, others: Sequence[OtherFace], audio: np.ndarray | StoredSound, *, piece: int
) -> SpeakerTrack:
    """Replace the tracked face by the speaking face, piece by piece of every shot; a change of the face is a cut.

    Args:
        track: the most prominent face.
        others: the other faces, each within one shot.
        audio: [N] at 16 kHz.
        piece: length of a clip in frames, because people of one shot speak in turn.
    """
    count = len(track)
    voice = loudness(audio, count)
    result = replace(
        track,
        landmarks68=track.landmarks68.copy(),
        detected=track.detected.copy(),
        cuts=track.cuts.copy(),
        bounds=None if track.bounds is None else track.bounds.copy(),
    )
    faces, lead = np.ones(count, int), np.full(count, np.nan, np.float32)
    starts = [0, *np.flatnonzero(track.cuts).tolist(), count]
    for start, end in zip(starts, starts[1:], strict=False):
        rivals = [
            face for face in others if start <= face.start < end and len(face.landmarks) >= LEAST_FRAMES
        ]
        if not rivals:
            continue
        points = [
            track.landmarks68[start:end],
            *(_spread(face.landmarks, face.start, start, end) for face in rivals),
        ]
        before = 0
        for low, high in _pieces(end - start, piece):
            values = {
                n: lip_voice(landmarks[low:high], voice[start + low : start + high])
                for n, landmarks in enumerate(points)
                if n == 0 or _measured(landmarks[low:high]) >= LEAST_FRAMES
            }
            best = max(values, key=lambda n: values[n])
            rows = slice(start + low, start + high)
            faces[rows] = len(values)
            if len(values) > 1:
                lead[rows] = values[best] - max(value for n, value in values.items() if n != best)
            if low and best != before:
                result.cuts[start + low] = True
            if best > 0:
                _replace(result, rivals[best - 1], start, end, rows)
            before = best
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


def _pieces(count: int, piece: int) -> list[tuple[int, int]]:
    """Return the pieces [low, high) of ``count`` frames; a last piece below `LEAST_FRAMES` joins the one before it."""
    lows = [low for low in range(0, count, piece) if low == 0 or count - low >= LEAST_FRAMES]
    return list(zip(lows, [*lows[1:], count], strict=True))


def _measured(landmarks: np.ndarray) -> int:
    """Return the number of frames with a face."""
    return int(np.isfinite(landmarks).all(axis=(1, 2)).sum())


def _replace(track: FaceTrack, face: OtherFace, start: int, end: int, rows: slice) -> None:
    """Write a face of the shot [start, end) into frames of a track; short gaps are interpolated."""
    no_cuts, part = np.zeros(end - start, bool), slice(rows.start - start, rows.stop - start)
    points = _spread(face.landmarks, face.start, start, end)
    track.detected[rows] = np.isfinite(points[part]).all(axis=(1, 2))
    track.landmarks68[rows] = bridge_gaps(points, no_cuts)[part]
    if track.bounds is not None:
        bounds = _spread(face.bounds, face.start, start, end)
        track.bounds[rows] = bridge_gaps(bounds[..., None], no_cuts)[part, ..., 0]
