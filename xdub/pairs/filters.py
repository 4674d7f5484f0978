"""Which generated pairs are fit to learn from (paper B.3): sanity, alignment, identity, lips that differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xdub.data.clip import Clip
from xdub.perception.mouth import mouth_landmark_distance

BLACK_RATIO = 0.5
"""Least light of the face in any frame of V' relative to V."""
FROZEN_RATIO = 0.2
"""Least motion of the face in V' relative to V."""
NOISE_RATIO = 3.0
"""Most fine detail of the face in V' relative to V."""
OUTSIDE_LEVELS = 8.0
"""Most mean difference outside the face, grey levels: exact pairs of a renderer differ a little at hair and neck."""
SHIFTS = 2
"""px of the crop within which V' must not fit V better than where it is."""
DELAYS = 2
"""Frames within which V' must not fit V better than when it is."""

Embed = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(frames [N,H,W,3] uint8, landmarks [N,68,2] in their px) -> unit vectors [N,D]."""


@dataclass(frozen=True, kw_only=True)
class MouthReading:
    """How far apart two videos' lips are."""

    distance: float
    """Template px, mean over the frames that were read."""
    found: float
    """Share of frames that could be read in both videos."""
    rigid: float = float("nan")
    """The same aligned by eyes and nose alone, where the instrument has landmarks."""


ReadMouth = Callable[[np.ndarray, np.ndarray, np.ndarray], MouthReading]
"""(V [N,H,W,3] uint8, V' likewise, landmarks of V [N,68,2])"""


@dataclass(frozen=True)
class Check:
    """One measured value and what it was held against."""

    name: str
    value: float
    threshold: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """All checks of a pair, in the order in which they were made; the first failure decides."""

    checks: tuple[Check, ...]

    @property
    def failed(self) -> Check | None:
        return next((check for check in self.checks if not check.passed), None)

    @property
    def kept(self) -> bool:
        return self.failed is None


def at_least(name: str, value: float, threshold: float) -> Check:
    """Passes from the threshold on; nan never passes."""
    return Check(name, value, threshold, bool(value >= threshold))


def at_most(name: str, value: float, threshold: float) -> Check:
    """Passes up to the threshold; nan never passes."""
    return Check(name, value, threshold, bool(value <= threshold))


def sanity_checks(clip: Clip, reference: np.ndarray) -> list[Check]:
    """V' is neither black, frozen nor noisy within the face, and is V everywhere else.

    Args:
        clip: V.
        reference: V', uint8 [F,H,W,3].
    """
    face = clip.visible_mask
    if not face.any():
        return [at_least("face_pixels", 0.0, 1.0)]
    old, new = _luma(clip.frames), _luma(reference)
    light = [
        float((after[mask].mean() + 1) / (before[mask].mean() + 1))
        for before, after, mask in zip(old, new, face, strict=True)
        if mask.any()
    ]
    checks = [at_least("black", min(light), BLACK_RATIO)]
    both = face[1:] & face[:-1]
    motion = _mean(np.abs(np.diff(old, axis=0)), both)
    if motion > 0.5:  # a still original proves nothing
        checks.append(at_least("frozen", _mean(np.abs(np.diff(new, axis=0)), both) / motion, FROZEN_RATIO))
    detail = max(_mean(_detail(old), face), 0.5)
    checks.append(at_most("noise", _mean(_detail(new), face) / detail, NOISE_RATIO))
    return checks


def alignment_checks(clip: Clip, reference: np.ndarray) -> list[Check]:
    """Outside the face V' lies on V: small difference, which no shift and no delay makes smaller (mirrored, late)."""
    outside = ~clip.face_mask
    old, new = _luma(clip.frames)[::4], _luma(reference)[::4]
    if outside.sum() < outside.size // 50:
        return []
    outside = outside[::4]
    here = _mean(np.abs(old - new), outside)
    checks = [at_most("outside", here, OUTSIDE_LEVELS)]
    if here > 0.5:  # otherwise equal already
        errors = {
            (dy, dx): _mean(np.abs(old - np.roll(new, (dy, dx), (1, 2))), outside & _rim(outside.shape))
            for dy in range(-SHIFTS, SHIFTS + 1)
            for dx in range(-SHIFTS, SHIFTS + 1)
        }
        (dy, dx), least = min(errors.items(), key=lambda item: item[1])
        shift = float(np.hypot(dy, dx)) if least < 0.9 * errors[0, 0] else 0.0
        checks.append(at_most("shift", shift, 0.0))
        checks += _delay_check(clip, reference)
    return checks


def _delay_check(clip: Clip, reference: np.ndarray) -> list[Check]:
    """Frames by which V' comes late or early; only a moving picture can tell."""
    at = np.arange(DELAYS, clip.num_frames - DELAYS, 4)
    if not len(at):
        return []
    old, outside = _luma(clip.frames[at]), ~clip.face_mask[at]
    errors = {
        delay: _mean(np.abs(old - _luma(reference[at + delay])), outside)
        for delay in range(-DELAYS, DELAYS + 1)
    }
    delay, least = min(errors.items(), key=lambda item: item[1])
    return [at_most("delay", float(abs(delay)) if least < 0.9 * errors[0] else 0.0, 0.0)]


def identity_check(one: np.ndarray, other: np.ndarray, threshold: float) -> Check:
    """Mean cosine between unit embeddings [N,D] of V and V', frame against frame."""
    return at_least("identity", float((one * other).sum(-1).mean()), threshold)


def compare_landmarks(one: np.ndarray, other: np.ndarray) -> MouthReading:
    """Reading from two landmark tracks [N,68,2] (paper B.3): 20 mouth points after Umeyama's alignment.

    Aligning by five points follows the paper, but the corners of the mouth among them absorb part of what is to be
    measured; by eyes and nose alone they do not. Both distances are kept in the scores.
    """
    apart = mouth_landmark_distance(one, other, "five")
    rigid = mouth_landmark_distance(one, other, "eyes_nose")
    known = np.isfinite(apart)
    if not known.any():
        return MouthReading(distance=float("nan"), found=0.0)
    return MouthReading(
        distance=float(apart[known].mean()), rigid=float(rigid[known].mean()), found=float(known.mean())
    )


def judge(
    clip: Clip,
    reference: np.ndarray,
    *,
    embed: Embed,
    read_mouth: ReadMouth,
    identity_threshold: float,
    mouth_threshold: float,
    every: int = 6,
    true_landmarks: np.ndarray | None = None,
) -> tuple[Verdict, dict[str, float]]:
    """Verdict on the pair (V', V) and its scores.

    Args:
        clip: V with its masks and landmarks.
        reference: V', uint8 [F,H,W,3].
        embed: the identity network; both videos are cut out by V's landmarks, the pose being V's.
        read_mouth: compares lips.
        every: networks look at every n-th frame.
        true_landmarks: of V' [F,68,2], where they are known exactly: nothing is read from pixels then.
    """
    checks = [*sanity_checks(clip, reference), *alignment_checks(clip, reference)]
    scores = {check.name: check.value for check in checks}
    if any(not check.passed for check in checks):  # networks have nothing to say about a broken picture
        return Verdict(tuple(checks)), scores
    known = np.flatnonzero(np.isfinite(clip.landmarks).all(axis=(1, 2)))[::every]
    frames, new, landmarks = clip.frames[known], reference[known], clip.landmarks[known]
    checks.append(at_least("frames_with_face", float(len(known)), 1.0))
    if checks[-1].passed:
        if true_landmarks is not None:
            reading = compare_landmarks(landmarks, true_landmarks[known])
        else:
            reading = read_mouth(frames, new, landmarks)
        checks.append(identity_check(embed(frames, landmarks), embed(new, landmarks), identity_threshold))
        checks.append(at_least("mouths_found", reading.found, 0.5))
        checks.append(at_least("mouth_distance", reading.distance, mouth_threshold))
        if np.isfinite(reading.rigid):
            scores["mouth_distance_rigid"] = reading.rigid
    return Verdict(tuple(checks)), scores | {check.name: check.value for check in checks}


def _luma(frames: np.ndarray) -> np.ndarray:
    return frames.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])


def _detail(luma: np.ndarray) -> np.ndarray:
    """Absolute difference to the mean of the four neighbours [F,H,W]."""
    around = sum(np.roll(luma, shift, axis) for axis in (1, 2) for shift in (-1, 1)) / 4
    return np.abs(luma - around)


def _rim(shape: tuple[int, ...]) -> np.ndarray:
    inside = np.zeros(shape, bool)
    inside[:, SHIFTS:-SHIFTS, SHIFTS:-SHIFTS] = True
    return inside


def _mean(values: np.ndarray, mask: np.ndarray) -> float:
    return float(values[mask].mean()) if mask.any() else 0.0
