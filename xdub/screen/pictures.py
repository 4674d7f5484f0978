"""Checks of a clip's pictures: sharpness, exposure and contrast of the face, and the turn of the head."""

from __future__ import annotations

import numpy as np

from xdub.config import ScreenConfig
from xdub.perception.face_mesh import head_pose
from xdub.screen.check import Footage, Measurement

SIDE = 64
"""Side in px of the face for `Sharpness`, so that its value does not depend on the crop's size."""
EVERY = 5
"""The pictures of every fifth frame are measured."""
WHITE, BLACK = 250, 5
"""Grey levels from which a pixel is burnt, and up to which it is lost."""


class Sharpness:
    """Detail of the face: variance of the Laplacian over the variance of the picture, in thousandths.

    The ratio does not change with light or contrast.
    """

    unit = "1/1000"

    def __init__(self, least: float) -> None:
        self.least = least

    def measure(self, footage: Footage) -> list[Measurement]:
        """Measure the median over every fifth frame."""
        value = _median([_detail(face) for face in _faces(footage)])
        message = f"the face is blurred: sharpness {value:.3g}; {self.least:g} needed"
        return [Measurement(name="sharpness", value=value, least=self.least, message=message)]


class Exposure:
    """Share of the face's pixels that are burnt or lost, and the range of its grey levels."""

    unit = "share, grey levels"

    def __init__(self, clipped: float | None, contrast: float | None) -> None:
        self.clipped, self.contrast = clipped, contrast

    def measure(self, footage: Footage) -> list[Measurement]:
        """Measure medians over every fifth frame; the range is from the 5th to the 95th percentile."""
        faces = list(_faces(footage))
        clipped = _median([float(((face >= WHITE) | (face <= BLACK)).mean()) for face in faces])
        contrast = _median([float(np.subtract(*np.quantile(face, (0.95, 0.05)))) for face in faces])
        return [
            Measurement(
                name="clipped",
                value=clipped,
                most=self.clipped,
                message=f"{clipped:.0%} of the face is overexposed or black",
            ),
            Measurement(
                name="contrast",
                value=contrast,
                least=self.contrast,
                message=f"the face has {contrast:.0f} grey levels: too dark or too flat",
            ),
        ]


class Pose:
    """Turn and nod of the head in degrees, which the pose of `xdub.perception.face_mesh` has."""

    unit = "degrees"

    def __init__(self, yaw: float | None, pitch: float | None) -> None:
        self.yaw, self.pitch = yaw, pitch

    def measure(self, footage: Footage) -> list[Measurement]:
        """Measure the 90th percentiles of both angles over all frames with a face."""
        yaw, pitch = head_angles(footage.landmarks[footage.face_frames])
        turn, nod = _high(yaw), _high(pitch)
        return [
            Measurement(
                name="yaw", value=turn, most=self.yaw, message=f"the head is turned by {turn:.0f} degrees"
            ),
            Measurement(
                name="pitch", value=nod, most=self.pitch, message=f"the head is tilted by {nod:.0f} degrees"
            ),
        ]


def picture_checks(config: ScreenConfig) -> list[Sharpness | Exposure | Pose]:
    """Return the checks of pictures that a recipe has thresholds for, the cheapest first."""
    checks: list[Sharpness | Exposure | Pose] = []
    if config.clipped is not None or config.contrast is not None:
        checks.append(Exposure(config.clipped, config.contrast))
    if config.sharpness is not None:
        checks.append(Sharpness(config.sharpness))
    if config.yaw is not None or config.pitch is not None:
        checks.append(Pose(config.yaw, config.pitch))
    return checks


def head_angles(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return yaw and pitch [F] in degrees for points [F, 68, 2]; both are 0 for a face seen from the front."""
    if not len(landmarks):
        return np.zeros(0), np.zeros(0)
    camera = head_pose(landmarks)[:, :, :3]
    rows = camera / np.linalg.norm(camera, axis=2, keepdims=True)
    depth = np.cross(rows[:, 0], rows[:, 1])
    yaw = np.degrees(np.arctan2(-depth[:, 0], np.hypot(depth[:, 1], depth[:, 2])))
    return yaw, np.degrees(np.arctan2(depth[:, 1], depth[:, 2]))


def _faces(footage: Footage) -> list[np.ndarray]:
    """Return grey pictures [s, s] of the face in every fifth frame with a face."""
    import cv2

    faces = []
    size = footage.frames.shape[1]
    for n in footage.sampled(EVERY):
        points = footage.landmarks[n]
        low, high = points.min(axis=0), points.max(axis=0)
        centre, half = (low + high) / 2, float((high - low).max()) / 2
        (x0, y0), (x1, y1) = (
            np.clip(np.round(centre + sign * half), 0, size).astype(int) for sign in (-1, 1)
        )
        if min(x1 - x0, y1 - y0) >= 8:
            faces.append(cv2.cvtColor(footage.frames[n, y0:y1, x0:x1], cv2.COLOR_RGB2GRAY))
    return faces


def _detail(face: np.ndarray) -> float:
    """Return the variance of the Laplacian over the variance of a grey picture [h, w], in thousandths."""
    import cv2

    shrink = min(face.shape) > SIDE
    picture = cv2.resize(
        face.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
    )
    # A repeated border has no detail.
    detail = cv2.Laplacian(picture, cv2.CV_32F)[1:-1, 1:-1]
    return 1000 * float(detail.var()) / max(float(picture.var()), 1.0)


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else float("nan")


def _high(angles: np.ndarray) -> float:
    return float(np.quantile(np.abs(angles), 0.9)) if len(angles) else float("nan")
