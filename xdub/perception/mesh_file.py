"""Face meshes of a long video in a temporary file, so that memory does not grow with the video's length."""

from __future__ import annotations

import tempfile

import numpy as np

POINTS = 478
"""Points of MediaPipe's mesh."""
ROW = POINTS * 3 * 4
"""Bytes of the mesh of one frame."""


class MeshFile:
    """Meshes [478, 3] float32 by frame; the file disappears with the object."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="xdub-mesh-")
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, mesh: np.ndarray) -> None:
        """Add the mesh of the next frame; nan without a face."""
        self._file.seek(self._count * ROW)
        self._file.write(np.ascontiguousarray(mesh, np.float32).tobytes())
        self._count += 1

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the meshes [stop - start, 478, 3] of frames start ... stop - 1."""
        if not 0 <= start <= stop <= self._count:
            raise IndexError(f"frames {start} to {stop} of {self._count}")
        self._file.seek(start * ROW)
        data = self._file.read((stop - start) * ROW)
        return np.frombuffer(data, np.float32).reshape(-1, POINTS, 3)

    def sample(self, start: int, stop: int, most: int) -> np.ndarray:
        """Return at most ``most`` meshes [n, 478, 3] of frames start ... stop - 1, at equal distances."""
        count = min(most, stop - start)
        frames = np.unique(np.linspace(start, stop - 1, count).round().astype(int))
        return np.concatenate([self.read(int(frame), int(frame) + 1) for frame in frames])
