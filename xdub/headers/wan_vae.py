"""Check of an autoencoder of Wan in one file, whose tensors have the names of its release."""

from __future__ import annotations

from pathlib import Path

from xdub.geometry import CodecGeometry
from xdub.headers.files import Fault, read_header
from xdub.perception.open_models.wan_names import is_vae_2_2


def original_geometry(path: Path, fix: str) -> CodecGeometry:
    """Return channels and factors of the autoencoder in a file. Raise Fault with ``fix`` for another network."""
    shapes = read_header(path, fix).shapes
    if not {"encoder.conv1.weight", "decoder.conv1.weight", "conv2.weight"} <= shapes.keys():
        raise Fault(f"{path}: holds no autoencoder of Wan with the names of its release", fix)
    return CodecGeometry(channels=shapes["conv2.weight"][0], time=4, space=16 if is_vae_2_2(shapes) else 8)
