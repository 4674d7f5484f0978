"""Filters of generated pairs (paper B.3): sanity, alignment, identity, lips that differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from xdub.data.clip import Clip
from xdub.data.ledger import LedgerRow
from xdub.perception.mouth import mouth_landmark_distance

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in a grey level."""
BLACK_RATIO = 0.5
"""Smallest light of the face in any frame of V' relative to V."""
FROZEN_RATIO = 0.2
"""Smallest motion of the face in V' relative to V."""
NOISE_RATIO = 3.0
"""Largest fine detail of the face in V' relative to V."""
OUTSIDE_LEVELS = 8.0
"""Largest mean difference outside the face, grey levels. Exact pairs of a renderer differ a little at hair and neck."""
SHIFTS = 2
"""Largest shift of V' that is tested, px of the crop; no shift may fit V better than V' unshifted."""
DELAYS = 2
"""Largest delay of V' that is tested, frames; no delay may fit V better than V' undelayed."""

Embed = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(frames [N,H,W,3] uint8, landmarks [N,68,2] in their px) -> unit vectors [N,D]."""


@dataclass(frozen=True, kw_only=True)
class MouthReading:
    """Distance between the lips of two videos."""

    distance: float
    """Mean over the frames that were read, px of the 112 px face template."""
    readable: float
    """Share of frames that could be read in both videos."""
    rigid: float = float("nan")
    """The same distance aligned by eyes and nose alone; nan if the method has no landmarks."""


ReadMouth = Callable[[np.ndarray, np.ndarray, np.ndarray], MouthReading]
"""(V [N,H,W,3] uint8, V' of the same shape, landmarks of V [N,68,2]) -> reading."""


@dataclass(frozen=True)
class Check:
    """One measured value, its threshold and the result."""

    name: str
    value: float
    threshold: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """All checks of a pair, in the order of their execution; the first failure decides."""

    checks: tuple[Check, ...]

    @property
    def failed(self) -> Check | None:
        """The first check that did not pass, None for a kept pair."""
        return next((check for check in self.checks if not check.passed), None)

    @property
    def kept(self) -> bool:
        """True if every check passed."""
        return self.failed is None

    def ledger_row(self, key: str, pair_id: str, scores: Mapping[str, float], message: str = "") -> LedgerRow:
        """Return the ledger row of the pair. Scores are sorted by name, so that equal pairs have equal ledgers."""
        measured = {name: float(scores[name]) for name in sorted(scores)}
        failed = self.failed
        if failed is None:
            return LedgerRow(input=key, clip_id=pair_id, status="kept", message=message, scores=measured)
        return LedgerRow(
            input=key,
            clip_id=pair_id,
            status="rejected",
            check=failed.name,
            value=failed.value,
            threshold=failed.threshold,
            message=message,
            scores=measured,
        )


def at_least(name: str, value: float, threshold: float) -> Check:
    """Return a check that passes from the threshold on; nan never passes."""
    return Check(name, value, threshold, bool(value >= threshold))


def at_most(name: str, value: float, threshold: float) -> Check:
    """Return a check that passes up to the threshold; nan never passes."""
    return Check(name, value, threshold, bool(value <= threshold))


def sanity_checks(clip: Clip, reference: np.ndarray) -> list[Check]:
    """Check that V' is neither black, frozen nor noisy within the face.

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
    # Motion cannot be compared if the original is still.
    if motion > 0.5:
        checks.append(at_least("frozen", _mean(np.abs(np.diff(new, axis=0)), both) / motion, FROZEN_RATIO))
    detail = max(_mean(_detail(old), face), 0.5)
    checks.append(at_most("noise", _mean(_detail(new), face) / detail, NOISE_RATIO))
    return checks


def alignment_checks(clip: Clip, reference: np.ndarray) -> list[Check]:
    """Check that V' matches V outside the face: the difference is small, and no shift or delay reduces it."""
    outside = ~clip.face_mask
    old, new = _luma(clip.frames)[::4], _luma(reference)[::4]
    if outside.sum() < outside.size // 50:
        return []
    outside = outside[::4]
    difference = _mean(np.abs(old - new), outside)
    checks = [at_most("outside", difference, OUTSIDE_LEVELS)]
    # Below half a grey level the pictures are equal, and the best shift would be noise.
    if difference > 0.5:
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
    """Check that V' is neither late nor early; a delay is measurable in a moving picture only."""
    frames = np.arange(DELAYS, clip.num_frames - DELAYS, 4)
    if not len(frames):
        return []
    old, outside = _luma(clip.frames[frames]), ~clip.face_mask[frames]
    errors = {
        delay: _mean(np.abs(old - _luma(reference[frames + delay])), outside)
        for delay in range(-DELAYS, DELAYS + 1)
    }
    delay, least = min(errors.items(), key=lambda item: item[1])
    return [at_most("delay", float(abs(delay)) if least < 0.9 * errors[0] else 0.0, 0.0)]


def identity_check(one: np.ndarray, other: np.ndarray, threshold: float) -> Check:
    """Check the mean cosine between unit embeddings [N,D] of V and V', frame by frame."""
    return at_least("identity", float((one * other).sum(-1).mean()), threshold)


def compare_landmarks(one: np.ndarray, other: np.ndarray) -> MouthReading:
    """Compare the 20 mouth points of two landmark tracks [N,68,2] after Umeyama's alignment (paper B.3).

    The paper aligns by five points. Two of these are the corners of the mouth, which absorb part of the distance;
    alignment by eyes and nose avoids that. The scores hold both distances.
    """
    distance = mouth_landmark_distance(one, other, "five")
    rigid = mouth_landmark_distance(one, other, "eyes_nose")
    valid = np.isfinite(distance)
    if not valid.any():
        return MouthReading(distance=float("nan"), readable=0.0)
    return MouthReading(
        distance=float(distance[valid].mean()),
        rigid=float(rigid[valid].mean()),
        readable=float(valid.mean()),
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
    """Run all checks on the pair (V', V); return the verdict and the scores by name.

    Args:
        clip: V with its masks and landmarks.
        reference: V', uint8 [F,H,W,3].
        embed: the identity network; V's landmarks align both videos, because they share V's pose.
        read_mouth: comparison of lips.
        every: networks read every n-th frame.
        true_landmarks: exact landmarks of V' [F,68,2], used instead of `read_mouth`.
    """
    checks = [*sanity_checks(clip, reference), *alignment_checks(clip, reference)]
    scores = {check.name: check.value for check in checks}
    # Networks return no meaningful values for a broken picture.
    if any(not check.passed for check in checks):
        return Verdict(tuple(checks)), scores
    valid = np.flatnonzero(np.isfinite(clip.landmarks).all(axis=(1, 2)))[::every]
    frames, new, landmarks = clip.frames[valid], reference[valid], clip.landmarks[valid]
    checks.append(at_least("frames_with_face", float(len(valid)), 1.0))
    if checks[-1].passed:
        if true_landmarks is not None:
            reading = compare_landmarks(landmarks, true_landmarks[valid])
        else:
            reading = read_mouth(frames, new, landmarks)
        checks.append(identity_check(embed(frames, landmarks), embed(new, landmarks), identity_threshold))
        checks.append(at_least("mouths_found", reading.readable, 0.5))
        checks.append(at_least("mouth_distance", reading.distance, mouth_threshold))
        if np.isfinite(reading.rigid):
            scores["mouth_distance_rigid"] = reading.rigid
    return Verdict(tuple(checks)), scores | {check.name: check.value for check in checks}


def _luma(frames: np.ndarray) -> np.ndarray:
    """Return grey levels float32 [F,H,W] of frames [F,H,W,3]."""
    return frames.astype(np.float32) @ LUMA


def _detail(luma: np.ndarray) -> np.ndarray:
    """Return the absolute difference [F,H,W] of each pixel to the mean of its four neighbours."""
    around = sum(np.roll(luma, shift, axis) for axis in (1, 2) for shift in (-1, 1)) / 4
    return np.abs(luma - around)


def _rim(shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask [F,H,W] without the border, where a shifted picture wraps around."""
    inside = np.zeros(shape, bool)
    inside[:, SHIFTS:-SHIFTS, SHIFTS:-SHIFTS] = True
    return inside


def _mean(values: np.ndarray, mask: np.ndarray) -> float:
    return float(values[mask].mean()) if mask.any() else 0.0
