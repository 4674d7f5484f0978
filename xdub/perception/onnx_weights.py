"""Weights of an ONNX file, read without a runtime: the initialisers of its graph, by name.

Only the fields of the protocol buffer that hold weights are read: ModelProto.graph (7), GraphProto.initializer (5), and
of TensorProto dims (1), data_type (2), name (8) and raw_data (9). Nothing of the graph is executed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xdub.errors import UserError

GRAPH, INITIALIZER = 7, 5
"""Fields of the model and of the graph."""
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9
"""Fields of a tensor."""
FLOAT = 1
"""Data type float32, in which all weights must be."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""


def read_initializers(path: str | Path) -> dict[str, Tensor]:
    """Return the float32 initialisers of an ONNX file. Raise UserError for any other content."""
    try:
        content = Path(path).read_bytes()
        graphs = [value for field, value in _fields(content) if field == GRAPH and isinstance(value, bytes)]
        tensors = [
            _tensor(value)
            for graph in graphs
            for field, value in _fields(graph)
            if field == INITIALIZER and isinstance(value, bytes)
        ]
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable ONNX file ({error})") from error
    if not tensors:
        raise UserError(f"{path}: not a readable ONNX file (it has no weights)")
    return dict(tensors)


def _tensor(content: bytes) -> tuple[str, Tensor]:
    """Return name and values of a TensorProto."""
    dims: list[int] = []
    kind, name, raw = 0, "", b""
    for field, value in _fields(content):
        if field == DIMS:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif field == DATA_TYPE and isinstance(value, int):
            kind = value
        elif field == NAME and isinstance(value, bytes):
            name = value.decode()
        elif field == RAW_DATA and isinstance(value, bytes):
            raw = value
    if kind != FLOAT:
        raise ValueError(f"{name} is not float32")
    # The values are copied, so that the tensor is writable.
    return name, torch.from_numpy(np.frombuffer(raw, "<f4").reshape(dims).astype(np.float32))


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a message; values of fixed width and of nested messages are bytes."""
    position = 0
    while position < len(content):
        tag, position = _varint(content, position)
        wire = tag & 7
        if wire == VARINT:
            value, position = _varint(content, position)
            yield tag >> 3, value
            continue
        length = {FIXED64: 8, FIXED32: 4}.get(wire)
        if wire == BYTES:
            length, position = _varint(content, position)
        if length is None or position + length > len(content):
            raise ValueError("a field is damaged")
        yield tag >> 3, content[position : position + length]
        position += length


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Return an integer of variable length and the position after it."""
    value = shift = 0
    while shift < 64:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number is too long")


def _packed(content: bytes) -> list[int]:
    numbers, position = [], 0
    while position < len(content):
        number, position = _varint(content, position)
        numbers.append(number)
    return numbers
