"""Tracking of one face through a video: landmarks for every frame, in one pass, with bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from xdub.perception.face_search import FaceSearch, face_window, overlap
from xdub.perception.landmarks import mesh_to_68
from xdub.perception.mesh_file import MeshFile

Observer = Callable[[int, np.ndarray, np.ndarray, bool], None]
"""Function of (number of the frame, frame uint8 [H, W, 3], mesh [478, 3] or nan, whether a shot begins)."""
SHORT_GAP = 5
"""Longest run of frames without a face that is interpolated."""
PATIENCE = 12
"""Frames without the tracked face after which the tracker accepts any face."""
SEARCH_EVERY = 12
"""Frames between thorough searches while there is no face; a search costs a second at 1080p."""
CUT_STEP = 0.12
"""Smallest mean change of a 32 x 32 thumbnail (values 0 to 1) at a cut."""
CUT_RATIO = 4.0
"""Smallest ratio of the thumbnail's change at a cut to the usual change in the shot."""


@dataclass(frozen=True, kw_only=True)
class FaceTrack:
    """One face over F frames of a video, in px of the full picture; rows without a face are nan."""

    landmarks68: np.ndarray
    """[F, 68, 2] float32, iBUG-68"""
    landmarks478: np.ndarray | None
    """[F, 478, 3] float32, MediaPipe's mesh, if kept; z in px, smaller is nearer"""
    detected: np.ndarray
    """[F] bool, True if the face was detected in the frame and not interpolated"""
    faces: np.ndarray
    """[F] int, number of faces detected in the searched part of the frame"""
    cuts: np.ndarray
    """[F] bool, True if the frame begins a new shot"""
    height: int
    width: int
    bounds: np.ndarray | None = None
    """[F, 4] float32, smallest x and y and largest x and y of the mesh"""
    meshes: MeshFile | None = None
    """Meshes of all frames, if recorded; gaps are not interpolated"""

    @property
    def has_face(self) -> np.ndarray:
        """[F] bool, True if the face was detected or interpolated."""
        return np.asarray(np.isfinite(self.landmarks68).all(axis=(1, 2)))

    def __len__(self) -> int:
        return len(self.detected)


class FaceTracker:
    """Tracker that finds the largest, most central face and follows it, also a small face in a large picture.

    Landmarks of each frame are measured independently, because a temporal filter would lag behind the lips. The search
    starts at the face's position in the previous frame. Results are deterministic. Use as a context manager, or call
    ``close``.
    """

    def __init__(self, confidence: float = 0.5) -> None:
        self._search = FaceSearch(confidence)

    @property
    def search(self) -> FaceSearch:
        """The face search, for an observer of `track`."""
        return self._search

    def track(
        self,
        frames: Iterable[np.ndarray],
        *,
        keep_mesh: bool = False,
        record: MeshFile | None = None,
        observer: Observer | None = None,
    ) -> FaceTrack:
        """Follow a face through frames uint8 RGB [H, W, 3], read one by one.

        Gaps of up to 5 frames are interpolated inside a shot. The track of a video without a face is all nan.
        ``keep_mesh`` costs 6 kB of memory a frame; ``record`` gets the same meshes on disk. ``observer`` is called
        after every frame.
        """
        points, bounds, meshes, faces, cuts, size = [], [], [], [], [], (0, 0)
        for n, (frame, mesh, count, cut) in enumerate(self._follow(frames)):
            if observer is not None:
                observer(n, frame, mesh, cut)
            size = frame.shape[:2]
            points.append(mesh_to_68(mesh))
            bounds.append(np.stack([mesh[:, :2].min(0), mesh[:, :2].max(0)]))
            faces.append(count)
            cuts.append(cut)
            if keep_mesh:
                meshes.append(mesh)
            if record is not None:
                record.append(mesh)
        starts = np.array(cuts, bool)
        landmarks = np.stack(points) if points else np.zeros((0, 68, 2), np.float32)
        return FaceTrack(
            landmarks68=bridge_gaps(landmarks, starts),
            landmarks478=bridge_gaps(np.stack(meshes), starts) if meshes else None,
            detected=np.asarray(np.isfinite(landmarks).all(axis=(1, 2))),
            faces=np.array(faces, int),
            cuts=starts,
            height=size[0],
            width=size[1],
            bounds=bridge_gaps(np.stack(bounds), starts).reshape(-1, 4)
            if bounds
            else np.zeros((0, 4), np.float32),
            meshes=record,
        )

    def _follow(self, frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray, int, bool]]:
        """Yield (frame, mesh [478, 3] or nan, number of faces, is a new shot) for every frame."""
        last: np.ndarray | None = None
        missing, count, watch = 0, 0, CutWatch()
        for n, frame in enumerate(frames):
            cut = watch.is_cut(frame)
            if cut:
                last, missing = None, 0
            mesh = None
            if last is not None:
                mesh, count = self._near(frame, last)
            if mesh is None and last is not None:
                # The same face may have moved out of its window.
                mesh, count = self._reacquire(frame, last)
            elif mesh is None:
                mesh, count = self._acquire(frame, thorough=n == 0 or cut or missing % SEARCH_EVERY == 0)
            missing = 0 if mesh is not None else missing + 1
            if mesh is not None:
                last = mesh
            elif missing > PATIENCE:
                last = None
            yield frame, _or_nan(mesh), count, cut

    def _near(self, frame: np.ndarray, last: np.ndarray) -> tuple[np.ndarray | None, int]:
        """Search the window of the last position; return the mesh, None if it is lost, and the number of faces."""
        faces = self._search.in_window(frame, face_window(last))
        best = max(faces, key=lambda mesh: overlap(mesh, last), default=None)
        if best is None or overlap(best, last) < 0.2:
            return None, len(faces)
        return best, len(faces)

    def _reacquire(self, frame: np.ndarray, last: np.ndarray) -> tuple[np.ndarray | None, int]:
        """Search a larger window for a face of similar size."""
        near = self._search.in_window(frame, face_window(last, 4.0))
        same = [mesh for mesh in near if overlap(mesh, last) > 0 and _similar_size(mesh, last)]
        if not same:
            return None, len(near)
        return self._search.confirm(frame, max(same, key=lambda mesh: overlap(mesh, last))), len(near)

    def _acquire(self, frame: np.ndarray, thorough: bool) -> tuple[np.ndarray | None, int]:
        """Search the whole picture for the most prominent face."""
        faces = self._search.in_picture(frame, thorough=thorough)
        if not faces:
            return None, 0
        return max(faces, key=lambda mesh: _prominence(mesh, *frame.shape[:2])), len(faces)

    def close(self) -> None:
        """Free the face search."""
        self._search.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class CutWatch:
    """Detector of hard cuts, which are changes of the whole picture that are large for the shot."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._usual = 0.0

    def is_cut(self, frame: np.ndarray) -> bool:
        """Return True if ``frame`` begins a new shot; the first frame does not."""
        import cv2

        # A full average of a 4K frame would cost as much as the landmarks, so skip pixels.
        step = max(1, min(frame.shape[:2]) // 128)
        small = cv2.resize(
            np.ascontiguousarray(frame[::step, ::step]), (32, 32), interpolation=cv2.INTER_AREA
        )
        small = small.astype(np.float32) / 255
        before, self._last = self._last, small
        if before is None:
            return False
        change = float(np.abs(small - before).mean())
        cut = change > CUT_STEP and change > CUT_RATIO * self._usual
        self._usual = 0.0 if cut else max(0.9 * self._usual, change)
        return cut


def bridge_gaps(meshes: np.ndarray, cuts: np.ndarray, longest: int = SHORT_GAP) -> np.ndarray:
    """Interpolate linearly over runs of at most ``longest`` nan frames between two faces of one shot.

    Args:
        meshes: [F, N, D] with nan rows.
        cuts: [F] bool, frames that begin a shot.
        longest: number of frames.
    """
    out = meshes.copy()
    valid = np.flatnonzero(np.isfinite(meshes[:, 0, 0])) if len(meshes) else np.zeros(0, int)
    for a, b in zip(valid[:-1], valid[1:], strict=True):
        if 1 < b - a <= longest + 1 and not cuts[a + 1 : b + 1].any():
            weight = (np.arange(a + 1, b, dtype=np.float32) - a)[:, None, None] / (b - a)
            out[a + 1 : b] = (1 - weight) * meshes[a] + weight * meshes[b]
    return out


def _prominence(mesh: np.ndarray, height: int, width: int) -> float:
    """Score a face by size and position; a face in the very corner counts half."""
    low, high = mesh[:, :2].min(axis=0), mesh[:, :2].max(axis=0)
    away = np.linalg.norm((low + high) / 2 / (width, height) - 0.5) / np.sqrt(0.5)
    return float((high - low).max() * (1 - 0.5 * away))


def _similar_size(a: np.ndarray, b: np.ndarray) -> bool:
    """Return True if the heights of two faces differ by a factor below 1.7."""
    ratio = float(np.ptp(a[:, 1]) / max(np.ptp(b[:, 1]), 1e-6))
    return 0.6 < ratio < 1.7


def _or_nan(mesh: np.ndarray | None) -> np.ndarray:
    return np.full((478, 3), np.nan, np.float32) if mesh is None else mesh
