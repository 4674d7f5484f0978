"""Check of an autoencoder of Wan in one file, whose tensors have the names of its release."""

from __future__ import annotations

from pathlib import Path

from xdub.geometry import CodecGeometry
from xdub.headers.files import Fault, read_header

NESTED = "encoder.downsamples.0.downsamples."
"""Beginning of names that Wan 2.2 has and Wan 2.1 does not."""


def original_geometry(path: Path, fix: str) -> CodecGeometry:
    """Return channels and factors of the autoencoder in a file. Raise Fault with ``fix`` for another network."""
    shapes = read_header(path, fix).shapes
    if not {"encoder.conv1.weight", "decoder.conv1.weight", "conv2.weight"} <= shapes.keys():
        raise Fault(f"{path}: holds no autoencoder of Wan with the names of its release", fix)
    newer = any(name.startswith(NESTED) for name in shapes)
    return CodecGeometry(channels=shapes["conv2.weight"][0], time=4, space=16 if newer else 8)
