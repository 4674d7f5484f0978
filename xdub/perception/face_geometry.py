"""MediaPipe's canonical face: 468 vertices in cm and the triangles between them, read from `face_landmarker.task`.

The task file is a zip that holds a protobuf message ``GeometryPipelineMetadata``, whose field 1 is the mesh
(``Mesh3d``: field 3 has x, y, z, u, v of each vertex as floats, field 4 the triangles' vertex numbers).
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from xdub.errors import UserError
from xdub.perception.registry import fetch

GEOMETRY = "geometry_pipeline_metadata_landmarks.binarypb"
"""Name of the message in the task file."""
VERTICES = 468
"""Vertices of the canonical face; the tracker's ten further points are irises."""


@dataclass(frozen=True, eq=False)
class CanonicalFace:
    """The mean face of MediaPipe; x points to the right of the picture, y down, z away from the viewer."""

    vertices: np.ndarray
    """[468, 3] float64, cm"""
    triangles: np.ndarray
    """[T, 3] int, vertex numbers"""


@lru_cache(maxsize=1)
def canonical_face() -> CanonicalFace:
    """Load the canonical face. Raise UserError if the weights (role ``face_landmarker``) are missing or damaged."""
    return read_geometry(fetch("face_landmarker"))


def read_geometry(path: Path) -> CanonicalFace:
    """Read the canonical face of a task file. Raise UserError if the file has none."""
    try:
        with zipfile.ZipFile(path) as box:
            message = box.read(GEOMETRY)
        mesh = next(value for field, value in _fields(message) if field == 1)
        floats = [value for field, value in _fields(mesh) if field == 3]
        numbers = [value for field, value in _fields(mesh) if field == 4]
        points = np.array([struct.unpack("<f", value)[0] for value in floats], np.float64).reshape(-1, 5)
        triangles = np.array(numbers, int).reshape(-1, 3)
    except (OSError, KeyError, ValueError, IndexError, StopIteration, TypeError, struct.error) as error:
        raise UserError(f"{path}: holds no face geometry ({error})") from error
    if len(points) != VERTICES or not len(triangles) or triangles.max() >= VERTICES:
        raise UserError(f"{path}: holds a face geometry of {len(points)} vertices, not {VERTICES}")
    # In the file y points up and z towards the viewer.
    return CanonicalFace(points[:, :3] * (1.0, -1.0, -1.0), triangles)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (field number, value) of a protobuf message; numbers are int, all other values bytes."""
    start = 0
    while start < len(message):
        key, start = _varint(message, start)
        kind = key & 7
        if kind == 0:
            number, start = _varint(message, start)
            yield key >> 3, number
            continue
        if kind == 2:
            length, start = _varint(message, start)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        yield key >> 3, message[start : start + length]
        start += length


def _varint(message: bytes, start: int) -> tuple[int, int]:
    """Return (value, next position) of a number of seven bits a byte."""
    value = shift = 0
    while True:
        byte = message[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start
