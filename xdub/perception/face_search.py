"""Search for faces of any size in one picture with MediaPipe's face landmarker.

Its detector reads 128 px at short range, so a face must fill a large part of its input. A picture is therefore searched
as a whole, then with a border (for faces that fill the picture), then in overlapping tiles (for distant faces).
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from xdub.errors import UserError
from xdub.perception.quiet import without_chatter
from xdub.perception.registry import fetch

if TYPE_CHECKING:
    from mediapipe.tasks.python.vision import FaceLandmarker

INPUT = 256
"""Side of the landmarker's input, px; the landmark network reads no more."""
MAX_FACES = 5
"""Largest number of faces in one window."""
MIN_FACE = 16
"""Smallest width of a face, px; below it detections are noise."""
TILE_PARTS = (2, 3.5)
"""Shorter side of the picture over the side of a tile, for two passes."""
MIN_TILE = 96
"""Smallest side of a tile, px."""


@dataclass(frozen=True)
class SearchWindow:
    """A square of the picture, top left corner and side in px; it may extend beyond the picture."""

    x: int
    y: int
    side: int


class FaceSearch:
    """MediaPipe's landmarker on windows of a picture; stateless, so equal pictures have equal points.

    Use as a context manager, or call ``close``.

    Raises:
        UserError: the weights (role ``face_landmarker``) or the package mediapipe are missing.
    """

    def __init__(self, confidence: float = 0.5) -> None:
        model = fetch("face_landmarker")
        with without_chatter():
            self._task = _create_task(model, confidence)
            self._close = weakref.finalize(self, _shut, self._task)
            # The landmarker starts, and prints, at its first use.
            self.in_window(np.zeros((INPUT, INPUT, 3), np.uint8), SearchWindow(0, 0, INPUT))

    def in_window(self, picture: np.ndarray, window: SearchWindow) -> list[np.ndarray]:
        """Find faces in a window of a picture uint8 [H, W, 3]; return their meshes [478, 3] in px of the picture."""
        from mediapipe import Image, ImageFormat

        image = Image(image_format=ImageFormat.SRGB, data=_cut(picture, window))
        faces = []
        for points in self._task.detect(image).face_landmarks:
            mesh = np.array([(p.x, p.y, p.z) for p in points], np.float32) * window.side
            mesh[:, :2] += (window.x, window.y)
            if np.ptp(mesh[:, 0]) >= MIN_FACE:
                faces.append(mesh)
        return faces

    def in_picture(self, picture: np.ndarray, *, thorough: bool = True) -> list[np.ndarray]:
        """Find all faces of a picture, largest first; ``thorough`` searches tiles if the whole picture shows none."""
        height, width = picture.shape[:2]
        passes = [[window] for window in _whole(height, width)]
        if thorough:
            sides = [int(min(height, width) / part) for part in TILE_PARTS]
            passes += [_tiles(height, width, side) for side in sides if side >= MIN_TILE]
        for windows in passes:
            detected = [face for window in windows for face in self.in_window(picture, window)]
            faces = [self.confirm(picture, face, strict=len(windows) > 1) for face in _distinct(detected)]
            if confirmed := _distinct([face for face in faces if face is not None]):
                return confirmed
        return []

    def confirm(self, picture: np.ndarray, mesh: np.ndarray, *, strict: bool = False) -> np.ndarray | None:
        """Measure a face again in its own window; None if a closer or wider window (strict: both) shows no face.

        A pattern that looks like a face in one window does not look like a face in another. A small face is measured
        well only in its own window.
        """
        # The first measurement of a distant face may be far off, so repeat it.
        for least in (0.05, 0.5):
            faces = self.in_window(picture, face_window(mesh))
            best = max(faces, key=lambda other: overlap(other, mesh), default=None)
            if best is None or overlap(best, mesh) < least:
                return None
            mesh = best
        views = [self.in_window(picture, face_window(mesh, margin)) for margin in (1.6, 2.5)]
        same = [max((overlap(other, mesh) for other in faces), default=0.0) for faces in views]
        return mesh if (min if strict else max)(same) > 0.6 else None

    def close(self) -> None:
        """Free the landmarker."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def face_window(mesh: np.ndarray, margin: float = 2.0) -> SearchWindow:
    """Return the square around a face, ``margin`` times its larger extent; the detector works best at 2."""
    low, high = mesh[:, :2].min(axis=0), mesh[:, :2].max(axis=0)
    side = max(8, round(float((high - low).max()) * margin))
    x, y = (low + high) / 2 - side / 2
    return SearchWindow(round(float(x)), round(float(y)), side)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection over union of the boxes around two meshes."""
    low = np.maximum(a[:, :2].min(axis=0), b[:, :2].min(axis=0))
    high = np.minimum(a[:, :2].max(axis=0), b[:, :2].max(axis=0))
    common = float(np.prod(np.clip(high - low, 0, None)))
    total = float(np.prod(np.ptp(a[:, :2], axis=0)) + np.prod(np.ptp(b[:, :2], axis=0)))
    return common / max(total - common, 1e-6)


def whole_picture(height: int, width: int) -> SearchWindow:
    """Return the square around a picture of ``height`` x ``width`` px."""
    long = max(height, width)
    return SearchWindow((width - long) // 2, (height - long) // 2, long)


def _whole(height: int, width: int) -> list[SearchWindow]:
    """Return a square around the whole picture, and a larger one."""
    wide = round(1.5 * max(height, width))
    return [
        whole_picture(height, width),
        SearchWindow((width - wide) // 2, (height - wide) // 2, wide),
    ]


def _tiles(height: int, width: int, side: int) -> list[SearchWindow]:
    """Return tiles that overlap by half, so that one of them contains any face of up to half a tile."""

    def starts(length: int) -> np.ndarray:
        count = max(1, int(np.ceil((length - side) / (side / 2))) + 1)
        return np.linspace(0, length - side, count).round().astype(int)

    return [SearchWindow(int(x), int(y), side) for y in starts(height) for x in starts(width)]


def _distinct(faces: list[np.ndarray]) -> list[np.ndarray]:
    """Sort faces by size, largest first, and drop duplicates."""
    kept: list[np.ndarray] = []
    for face in sorted(faces, key=lambda mesh: -float(np.ptp(mesh[:, 1]))):
        if all(overlap(face, other) < 0.3 for other in kept):
            kept.append(face)
    return kept


def _cut(picture: np.ndarray, window: SearchWindow) -> np.ndarray:
    """Return the window as [INPUT, INPUT, 3], shrunk by area or enlarged; grey outside the picture."""
    import cv2

    # A border around a large picture costs a copy, so shrink it by a whole number first.
    if window.side > 4 * INPUT:
        step = window.side // (2 * INPUT)
        height, width = (length // step for length in picture.shape[:2])
        picture = _resize(picture[: height * step, : width * step], (width, height))
        window = SearchWindow(round(window.x / step), round(window.y / step), round(window.side / step))
    height, width = picture.shape[:2]
    left, top = max(0, window.x), max(0, window.y)
    right, bottom = min(width, window.x + window.side), min(height, window.y + window.side)
    if left >= right or top >= bottom:
        return np.full((INPUT, INPUT, 3), 127, np.uint8)
    inside = picture[top:bottom, left:right]
    borders = (
        top - window.y,
        window.y + window.side - bottom,
        left - window.x,
        window.x + window.side - right,
    )
    if any(borders):
        inside = cv2.copyMakeBorder(inside, *borders, cv2.BORDER_CONSTANT, value=(127, 127, 127))
    return np.ascontiguousarray(_resize(inside, (INPUT, INPUT)))


def _resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    shrink = picture.shape[1] > size[0]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)


def _shut(task: FaceLandmarker) -> None:
    try:
        task.close()
    except RuntimeError:
        # The interpreter is ending, and the thread that could close the task is gone. Without this line MediaPipe's
        # destructor tries again and prints a traceback.
        task._handle = None


def _create_task(model: Path, confidence: float) -> FaceLandmarker:
    try:
        from mediapipe.tasks.python import BaseOptions
        from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerOptions
    except ImportError as error:
        raise UserError("face tracking needs the package mediapipe: pip install 'xdub[faces]'") from error
    except OSError as error:
        raise UserError(
            f"mediapipe cannot load a system library ({error}): apt-get install libegl1 libgles2"
        ) from error
    options = FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model)),
        num_faces=MAX_FACES,
        min_face_detection_confidence=confidence,
        min_face_presence_confidence=0.5,
    )
    return FaceLandmarker.create_from_options(options)
