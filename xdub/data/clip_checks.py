"""Checks of a clip before it is stored: its sound, the size of its face, and whether the face moves.

A clip is judged by itself, because a recording may stall, fall silent or lose its sound half-way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from xdub.data.ledger import LedgerRow
from xdub.geometry import SAMPLES_PER_FRAME

MIN_SOUND = 1e-4
"""Smallest root mean square of sound, about its mean, full scale 1; a frame below it is silent."""
MIN_COVERED = 0.9
"""Smallest share of a clip's frames that lie within the sound track."""
MIN_SIDE = 0.5
"""Smallest side of a face's box relative to video.size: a crop is enlarged at most twice."""
MAX_FROZEN = 0.4
"""Largest share of a clip's stretches in which the face does not move; a picture that stands still for 25 of 45 frames
has 14 such stretches of 34."""
STRETCH = 12
"""Frames of a stretch; one begins at every frame. Sources of 5 fps and more show at least two pictures in it."""
STILL_POINTS = 0.005
"""Smallest motion of the face's points against each other in a stretch, in eye distances.

Points on a still photo move by 0.001 to 0.004, also under a moving camera, and on a speaking face by 0.01 to 0.05.
"""
STILL_LEVELS = 0.4
"""Smallest growth of the picture's change from 1 to `STRETCH` / 2 frames of distance, in grey levels.

Noise and compression change a picture as much after one frame as after six; a moving face changes it by 2 to 10 more.
"""
GRID = 16
"""Cells of a crop's side in which the picture is averaged before its change is measured."""


class Rejected(Exception):
    """A readable video or clip that fails a check, with the check's name, value and threshold.

    ``scores`` are all values that were measured until then, by name.
    """

    def __init__(
        self,
        check: str,
        value: float,
        threshold: float,
        message: str,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(message)
        self.check, self.value, self.threshold, self.message = check, value, threshold, message
        self.scores = dict(scores or {})

    def row(self, source: str, clip_id: str = "") -> LedgerRow:
        """Return the ledger row of the source, or of the frames that ``clip_id`` names."""
        return LedgerRow(
            input=source,
            clip_id=clip_id,
            status="rejected",
            check=self.check,
            value=self.value,
            threshold=self.threshold,
            message=self.message,
            scores=self.scores,
        )


def frame_levels(audio: np.ndarray) -> np.ndarray:
    """Return the root mean square about the mean of each video frame's sound, [N // 640], of samples [N]."""
    count = len(audio) // SAMPLES_PER_FRAME
    return audio[: count * SAMPLES_PER_FRAME].reshape(count, SAMPLES_PER_FRAME).std(axis=1, dtype=np.float64)


def sound_level(audio: np.ndarray) -> float:
    """Return the median of `frame_levels`, which is below `MIN_SOUND` if more than half of the frames are silent."""
    levels = frame_levels(audio)
    return float(np.median(levels)) if len(levels) else 0.0


def check_loudness(blocks: Iterable[np.ndarray]) -> None:
    """Raise `Rejected` for a recording that is silent throughout; each block [n] has whole frames but the last."""
    loudest = max(float(frame_levels(block).max(initial=0.0)) for block in blocks)
    if loudest < MIN_SOUND:
        raise Rejected("sound", loudest, MIN_SOUND, "the sound is silent")


def check_sound(audio: np.ndarray, covered: float = 1.0) -> dict[str, float]:
    """Raise `Rejected` for a clip's sound [N] that is mostly silent, or that ends before the picture; return scores.

    ``covered`` is the share of the clip's frames within the sound track.
    """
    if covered < MIN_COVERED:
        raise Rejected("audio", covered, MIN_COVERED, "the sound track does not cover the clip")
    level = sound_level(audio)
    if level < MIN_SOUND:
        raise Rejected("sound", level, MIN_SOUND, "more than half of the clip is silent")
    return {"sound": level, "sound.least": MIN_SOUND, "audio": covered, "audio.least": MIN_COVERED}


def check_face_size(boxes: np.ndarray, size: int) -> dict[str, float]:
    """Raise `Rejected` if the median side of boxes [F, 3] is too small for crops of ``size`` px; return the scores."""
    side, least = float(np.median(boxes[:, 2])), MIN_SIDE * size
    if side < least:
        raise Rejected("face_size", side, least, f"the face crop is {side:.0f} px wide; {least:.0f} needed")
    return {"face_size": side, "face_size.least": least}


def check_motion(frames: np.ndarray, points: np.ndarray, face: np.ndarray) -> dict[str, float]:
    """Raise `Rejected` for a clip whose face does not move for more than about half of the time; return the scores.

    Args:
        frames: uint8 [F, S, S, 3]
        points: landmarks [F, 68, 2] in any px
        face: bool [F, S, S], the lower face
    """
    share = still_share(frames, points, face)
    if share > MAX_FROZEN:
        raise Rejected("still", share, MAX_FROZEN, "the face does not move in most of the clip")
    return {"still": share, "still.most": MAX_FROZEN}


def still_share(frames: np.ndarray, points: np.ndarray, face: np.ndarray) -> float:
    """Return the share of stretches without motion of the face, see `check_motion`; 0 for a clip without a stretch.

    A face moves in a stretch if its points move against each other and its picture changes more than by noise.
    Repeated frames of a source with few frames a second therefore count as moving, and a photo in front of a moving
    background, or filmed by a moving camera, does not.
    """
    if len(frames) < STRETCH:
        return 0.0
    still = (_point_motion(points) < STILL_POINTS) | (_picture_motion(frames, face) < STILL_LEVELS)
    return float(still.mean())


def _point_motion(points: np.ndarray) -> np.ndarray:
    """Return the motion [F - 11] of points [F, 68, 2] in each stretch, in eye distances.

    Each frame's points are first aligned by shift, turn and size with their mean shape, so a moving head or camera does
    not count as motion.
    """
    shape = points[..., 0] + 1j * points[..., 1].astype(np.float64)
    shape -= shape.mean(axis=1, keepdims=True)
    mean = shape[0]
    # The mean shape settles within two rounds.
    for _ in range(2):
        aligned = shape / ((shape @ mean.conj()) / np.vdot(mean, mean))[:, None]
        mean = aligned.mean(axis=0)
    eyes = abs(mean[36:42].mean() - mean[42:48].mean())
    stretches = np.lib.stride_tricks.sliding_window_view(aligned / eyes, STRETCH, axis=0)
    return np.sqrt(stretches.var(axis=-1).mean(axis=-1))


def _picture_motion(frames: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Return the growth [F - 11] of the picture's change with distance in each stretch, in grey levels of the face."""
    import cv2

    def grid(picture: np.ndarray) -> np.ndarray:
        return cv2.resize(picture.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)

    cells = grid(face.mean(axis=0)) > 0.5
    if not cells.any():
        cells[:] = True
    pictures = np.stack([grid(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))[cells] for frame in frames])
    far = STRETCH // 2
    count = len(frames) - STRETCH + 1
    near_change, far_change = (
        _running_mean(np.abs(pictures[gap:] - pictures[:-gap]).mean(axis=1), STRETCH - gap)[:count]
        for gap in (1, far)
    )
    return far_change - near_change


def _running_mean(values: np.ndarray, length: int) -> np.ndarray:
    """Return the means of all runs of ``length`` values."""
    return np.lib.stride_tricks.sliding_window_view(values, length).mean(axis=-1)
