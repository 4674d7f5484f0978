"""Which generated pairs are fit to learn from (paper B.3): sanity, alignment, identity, lips that differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xdub.data.clip import Clip
from xdub.perception.mouth import Anchor, mouth_landmark_distance

BLACK_LEVEL = 12.0
"""Mean grey level of the face below which a frame counts as black."""
FROZEN_RATIO = 0.1
"""Least motion of the face in V' relative to V."""
NOISE_RATIO = 3.0
"""Most fine detail of the face in V' relative to V."""
OUTSIDE_LEVELS = 8.0
"""Most mean difference outside the face, grey levels: exact pairs of a renderer differ a little at hair and neck."""
SHIFTS = 2
"""px of the crop within which V' must not fit V better than where it is."""

Embed = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(frames [N,H,W,3] uint8, landmarks [N,68,2] in their px) -> unit vectors [N,D]."""
Locate = Callable[[np.ndarray], np.ndarray]
"""frames [N,H,W,3] uint8 -> landmarks [N,68,2] in their px, nan rows where no face is found."""


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
    level = min(float(frame[mask].mean()) for frame, mask in zip(new, face, strict=True) if mask.any())
    # A dark original may be dark: only light that got lost counts.
    dark = min(BLACK_LEVEL, 0.5 * float(old[face].mean()))
    checks = [at_least("black", level, dark)]
    both = face[1:] & face[:-1]
    motion = _mean(np.abs(np.diff(old, axis=0)), both)
    if motion > 0.5:  # a still original proves nothing
        checks.append(at_least("frozen", _mean(np.abs(np.diff(new, axis=0)), both) / motion, FROZEN_RATIO))
    detail = max(_mean(_detail(old), face), 0.5)
    checks.append(at_most("noise", _mean(_detail(new), face) / detail, NOISE_RATIO))
    return checks


def alignment_checks(clip: Clip, reference: np.ndarray) -> list[Check]:
    """Outside the face V' lies on V: small difference, and no shift makes it smaller (catches mirrored, shifted, cut)."""
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
    return checks


def identity_check(one: np.ndarray, other: np.ndarray, threshold: float) -> Check:
    """Mean cosine between unit embeddings [N,D] of V and V', frame against frame."""
    return at_least("identity", float((one * other).sum(-1).mean()), threshold)


def mouth_check(one: np.ndarray, other: np.ndarray, threshold: float) -> Check:
    """The lips of V' must differ from V's: mean distance of landmarks [N,68,2] in the template, five-point alignment."""
    return at_least("mouth_distance", mouth_distance(one, other), threshold)


def mouth_distance(one: np.ndarray, other: np.ndarray, anchor: Anchor = "five") -> float:
    """Mean over frames of the mouth distance of two landmark tracks [N,68,2], template px; nan if no frame has both.

    Aligning by five points follows the paper, but the corners of the mouth among them absorb part of what is to be
    measured; by eyes and nose alone they do not. Both distances are kept in the scores.
    """
    apart = mouth_landmark_distance(one, other, anchor)
    known = apart[np.isfinite(apart)]
    return float(known.mean()) if len(known) else float("nan")


def judge(
    clip: Clip,
    reference: np.ndarray,
    *,
    locate: Locate,
    embed: Embed,
    identity_threshold: float,
    mouth_threshold: float,
    every: int = 3,
    landmarks: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[Verdict, dict[str, float]]:
    """Verdict on the pair (V', V) and its scores.

    Args:
        clip: V with its masks.
        reference: V', uint8 [F,H,W,3].
        locate: the landmark tracker; it looks at both videos, so that its habits cancel.
        embed: the identity network; both videos are aligned with V's landmarks, the pose being V's.
        every: networks look at every n-th frame.
        landmarks: true landmarks of (V, V') [F,68,2], if known: no tracker is asked then.
    """
    checks = [*sanity_checks(clip, reference), *alignment_checks(clip, reference)]
    scores = {check.name: check.value for check in checks}
    if any(not check.passed for check in checks):  # networks have nothing to say about a broken picture
        return Verdict(tuple(checks)), scores
    if landmarks is None:
        landmarks = locate(clip.frames[::every]), locate(reference[::every])
    else:
        landmarks = landmarks[0][::every], landmarks[1][::every]
    found = np.isfinite(landmarks[0]).all(axis=(1, 2)) & np.isfinite(landmarks[1]).all(axis=(1, 2))
    checks.append(at_least("faces_found", float(found.mean()), 0.5))
    if checks[-1].passed:
        one, other = landmarks[0][found], landmarks[1][found]
        frames, new = clip.frames[::every][found], reference[::every][found]
        checks.append(identity_check(embed(frames, one), embed(new, one), identity_threshold))
        checks.append(mouth_check(one, other, mouth_threshold))
        scores["mouth_distance_rigid"] = mouth_distance(one, other, "eyes_nose")
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
