"""Faces of a video other than that of `FaceTracker`, each within one shot."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from xdub.perception.face_search import FaceSearch, face_window, overlap, whole_picture
from xdub.perception.landmarks import mesh_to_68

LOOK_EVERY = 25
"""Frames between looks at the whole picture, beside the first frame of each shot: one search costs 10 ms."""
MOST_FACES = 3
"""Largest number of other faces that are followed at the same time."""
SAME = 0.2
"""Least overlap of a face with its own last position, and largest with another face."""
PATIENCE = 5
"""Frames without a face after which it is no longer followed; shorter gaps are nan."""


@dataclass(eq=False)
class OtherFace:
    """A face in consecutive frames of one shot."""

    start: int
    """First frame."""
    landmarks: list[np.ndarray] = field(default_factory=list)
    """[68, 2] float32 px of the picture for each frame; nan where the face is lost for a moment"""
    bounds: list[np.ndarray] = field(default_factory=list)
    """[4] float32 smallest x and y and largest x and y of the mesh"""
    last: np.ndarray | None = None
    """Mesh [478, 3] of the last frame with a face, while the face is followed."""
    missing: int = 0
    """Frames since then."""

    @property
    def end(self) -> int:
        """Frame after the last one."""
        return self.start + len(self.landmarks)


class OtherFaces:
    """Observer of a `FaceTracker`, which calls it after every frame."""

    def __init__(self, search: FaceSearch) -> None:
        self._search = search
        self._followed: list[OtherFace] = []
        self.faces: list[OtherFace] = []
        """All faces that were followed, in the order of their first frames."""

    def __call__(self, n: int, frame: np.ndarray, main: np.ndarray, cut: bool) -> None:
        """Follow the other faces into frame ``n`` uint8 [H, W, 3]; ``main`` is the tracked mesh, nan without a face."""
        if cut:
            self._followed = []
        for face in list(self._followed):
            self._update(face, frame, main)
        if n == 0 or cut or n % LOOK_EVERY == 0:
            self._look(n, frame, main)

    def _update(self, face: OtherFace, frame: np.ndarray, main: np.ndarray) -> None:
        last = face.last
        assert last is not None
        meshes = self._search.in_window(frame, face_window(last))
        mesh = max(meshes, key=lambda other: overlap(other, last), default=None)
        if mesh is None or overlap(mesh, last) < SAME or self._occupied(mesh, main, face):
            face.missing += 1
            if face.missing > PATIENCE:
                self._followed.remove(face)
                return
            _append(face, None)
        else:
            face.missing = 0
            _append(face, mesh)

    def _look(self, n: int, frame: np.ndarray, main: np.ndarray) -> None:
        """Begin to follow faces of the whole picture that are not followed yet."""
        for mesh in self._search.in_window(frame, whole_picture(*frame.shape[:2])):
            if len(self._followed) >= MOST_FACES:
                return
            if self._occupied(mesh, main):
                continue
            # A pattern that looks like a face in one window does not look like a face in another.
            confirmed = self._search.confirm(frame, mesh)
            if confirmed is not None and not self._occupied(confirmed, main):
                face = OtherFace(start=n)
                _append(face, confirmed)
                self._followed.append(face)
                self.faces.append(face)

    def _occupied(self, mesh: np.ndarray, main: np.ndarray, own: OtherFace | None = None) -> bool:
        """Return whether a mesh is the tracked face, or a followed one other than ``own``."""
        others = [face.last for face in self._followed if face is not own and face.last is not None]
        others += [main] if np.isfinite(main[0, 0]) else []
        return any(overlap(mesh, other) >= SAME for other in others)


def _append(face: OtherFace, mesh: np.ndarray | None) -> None:
    """Append a frame to a face; None is a frame in which it is lost."""
    if mesh is None:
        face.landmarks.append(np.full((68, 2), np.nan, np.float32))
        face.bounds.append(np.full(4, np.nan, np.float32))
        return
    face.landmarks.append(mesh_to_68(mesh))
    face.bounds.append(np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)]).astype(np.float32))
    face.last = mesh
