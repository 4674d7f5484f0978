"""Names and shapes of the tensors in safetensors files, and the signature by which a released model is recognised.

Only headers are read, so a model of 20 GB takes milliseconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from xdub.errors import UserError

Shapes = dict[str, tuple[int, ...]]
"""Name of a tensor -> its shape."""
MOST_HEADER_BYTES = 100_000_000
"""Longest header that the format allows."""


def header_shapes(path: str | Path) -> Shapes:
    """Return the shapes of all tensors of a safetensors file from its header.

    Raise UserError if the file is cut short or of another kind.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            length, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
            if length > min(MOST_HEADER_BYTES, size):
                raise ValueError("no header")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); download or copy it again") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path}: not a safetensors file; download or copy it again") from error
    if 8 + length + end != size:
        raise UserError(
            f"{path}: has {size:,} bytes, but its header lists {8 + length + end:,}; download or copy it again"
        )
    return shapes


def files_shapes(paths: Iterable[str | Path]) -> Shapes:
    """Return the shapes of a model whose tensors are divided over several safetensors files, see `header_shapes`."""
    shapes: Shapes = {}
    for path in paths:
        shapes |= header_shapes(path)
    return shapes


def signature(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the md5 of all names and shapes: of the sorted strings "name" and "name:d0_d1_...", joined by commas.

    Loaders of other projects recognise released models by the same value.
    """
    words = [word for name, shape in shapes.items() for word in (name, f"{name}:{'_'.join(map(str, shape))}")]
    return hashlib.md5(",".join(sorted(words)).encode(), usedforsecurity=False).hexdigest()


def first_difference(
    shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> str | None:
    """Return words for the first tensor, by name, that is missing, left over or of another shape; None if equal."""
    for name in sorted(shapes.keys() | expected.keys()):
        if name not in shapes:
            return f"{name} {list(expected[name])} is missing"
        if name not in expected:
            return f"{name} {list(shapes[name])} is left over"
        if tuple(shapes[name]) != tuple(expected[name]):
            return f"{name} has shape {list(shapes[name])}, not {list(expected[name])}"
    return None
