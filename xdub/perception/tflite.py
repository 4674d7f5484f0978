"""A reader of TensorFlow Lite files: the operators of the graph in order, with their constant tensors.

The format is a FlatBuffer (https://flatbuffers.dev/internals): tables refer to one another by offsets. Every offset and
length is checked against the file, so a damaged or hostile file raises `UserError`.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xdub.errors import UserError

OPERATORS = {
    0: "add",
    3: "conv",
    4: "depthwise_conv",
    18: "mul",
    19: "relu",
    22: "reshape",
    41: "sub",
    101: "abs",
}
"""Number in the file -> name, for the operators of convolutional networks with PReLU."""
TYPES = {0: np.dtype("<f4"), 2: np.dtype("<i4")}
"""Number in the file -> type of a tensor's values."""
PADDINGS = ("same", "valid")
MAX_ITEMS = 100_000
"""Largest number of tensors, operators, inputs or dimensions; a larger count is a sign of a damaged file."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph."""

    shape: tuple[int, ...]
    values: np.ndarray | None
    """Values of a constant in ``shape``; None for a tensor that is computed."""


@dataclass(frozen=True)
class Operator:
    """A node of the graph."""

    kind: str
    """A name in `OPERATORS`."""
    inputs: tuple[int, ...]
    """Numbers of the tensors that it reads."""
    outputs: tuple[int, ...]
    stride: int = 1
    """Stride of a convolution."""
    padding: str = "valid"
    """Padding of a convolution, a name in `PADDINGS`."""


@dataclass(frozen=True)
class Graph:
    """The first subgraph of a file."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    """Operators in the order of their execution."""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Unreadable(Exception):
    """The file breaks the format or uses an unsupported part of it; the message is the reason."""


def read_tflite(path: str | Path) -> Graph:
    """Read the graph of a file.

    Raises:
        UserError: the file is missing, is no TensorFlow Lite file, is damaged, or has an unsupported operator.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if data[4:8] != b"TFL3":
        raise UserError(f"{path}: not a TensorFlow Lite file")
    try:
        return _graph(data)
    except Unreadable as error:
        raise UserError(f"{path}: unreadable TensorFlow Lite file ({error})") from error


def _graph(data: bytes) -> Graph:
    model = _Table(data, _follow(data, 0))
    kinds = [_operator_kind(code) for code in model.tables(1)]
    subgraphs, buffers = model.tables(2), model.tables(4)
    if not subgraphs:
        raise Unreadable("no graph")
    graph = subgraphs[0]
    tensors = tuple(_tensor(table, buffers) for table in graph.tables(0))
    operators = tuple(_operator(table, kinds, len(tensors)) for table in graph.tables(3))
    return Graph(
        tensors,
        operators,
        _tensor_numbers(graph, 1, len(tensors)),
        _tensor_numbers(graph, 2, len(tensors)),
    )


def _operator_kind(code: _Table) -> str:
    """Return the name of an operator; numbers above 126 are stored in a second field."""
    number = max(code.number(0, "b", 0), code.number(3, "i", 0))
    if number not in OPERATORS:
        raise Unreadable(
            f"operator {number} is unknown; the readable ones are {', '.join(OPERATORS.values())}"
        )
    return OPERATORS[number]


def _tensor(table: _Table, buffers: list[_Table]) -> Tensor:
    shape = tuple(int(length) for length in table.numbers(0, "<i4"))
    buffer, code = table.number(2, "I", 0), table.number(1, "b", 0)
    if buffer >= len(buffers):
        raise Unreadable(f"tensor in buffer {buffer} of {len(buffers)}")
    raw = buffers[buffer].numbers(0, "u1")
    if not len(raw):
        return Tensor(shape, None)
    if code not in TYPES:
        raise Unreadable(f"tensor of type {code}; the readable ones are float32 and int32")
    if any(length < 1 for length in shape) or len(raw) != TYPES[code].itemsize * math.prod(shape):
        raise Unreadable(f"tensor of shape {list(shape)} with {len(raw)} bytes")
    return Tensor(shape, raw.view(TYPES[code]).reshape(shape))


def _operator(table: _Table, kinds: list[str], tensors: int) -> Operator:
    number = table.number(0, "I", 0)
    if number >= len(kinds):
        raise Unreadable(f"operator code {number} of {len(kinds)}")
    kind = kinds[number]
    inputs, outputs = _tensor_numbers(table, 1, tensors), _tensor_numbers(table, 2, tensors)
    if kind not in ("conv", "depthwise_conv"):
        return Operator(kind, inputs, outputs)
    options = table.table(4)
    padding, strides = options.number(0, "b", 0), {options.number(field, "i", 0) for field in (1, 2)}
    activation = options.number(4 if kind == "depthwise_conv" else 3, "b", 0)
    first_dilation = 5 if kind == "depthwise_conv" else 4
    dilations = {options.number(first_dilation + axis, "i", 1) for axis in (0, 1)}
    if not 0 <= padding < len(PADDINGS) or len(strides) != 1 or activation != 0 or dilations != {1}:
        raise Unreadable("convolution with unsupported options")
    return Operator(kind, inputs, outputs, strides.pop(), PADDINGS[padding])


def _tensor_numbers(table: _Table, field: int, tensors: int) -> tuple[int, ...]:
    numbers = tuple(int(number) for number in table.numbers(field, "<i4"))
    if any(not 0 <= number < tensors for number in numbers):
        raise Unreadable(f"reference to tensor {max(numbers, key=abs)} of {tensors}")
    return numbers


class _Table:
    """A FlatBuffer table: fields are found through the offsets of its vtable, and absent fields have a default."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._start = data, start
        self._vtable = start - _unpack(data, start, "i")
        self._fields = (_unpack(data, self._vtable, "H") - 4) // 2

    def number(self, field: int, form: str, default: int) -> int:
        """Return a field that is a number in the form of `struct`."""
        position = self._position(field)
        return default if position is None else _unpack(self._data, position, form)

    def numbers(self, field: int, dtype: str) -> np.ndarray:
        """Return a field that is a vector of numbers; an absent one is empty."""
        size = np.dtype(dtype).itemsize
        start, count = self._vector(field, size, None if size == 1 else MAX_ITEMS)
        return np.frombuffer(self._data, dtype, count, start)

    def table(self, field: int) -> _Table:
        """Return a field that is a table."""
        position = self._position(field)
        if position is None:
            raise Unreadable("missing table")
        return _Table(self._data, _follow(self._data, position))

    def tables(self, field: int) -> list[_Table]:
        """Return a field that is a vector of tables; an absent one is empty."""
        start, count = self._vector(field, 4, MAX_ITEMS)
        return [_Table(self._data, _follow(self._data, start + 4 * number)) for number in range(count)]

    def _position(self, field: int) -> int | None:
        offset = _unpack(self._data, self._vtable + 4 + 2 * field, "H") if field < self._fields else 0
        return self._start + offset if offset else None

    def _vector(self, field: int, size: int, most: int | None) -> tuple[int, int]:
        """Return (position, number of items) of a vector."""
        position = self._position(field)
        if position is None:
            return 0, 0
        start = _follow(self._data, position)
        count = _unpack(self._data, start, "I")
        if start + 4 + size * count > len(self._data) or (most is not None and count > most):
            raise Unreadable(f"vector of {count} items at byte {start}")
        return start + 4, count


def _follow(data: bytes, position: int) -> int:
    return position + _unpack(data, position, "I")


def _unpack(data: bytes, position: int, form: str) -> int:
    if position < 0 or position + struct.calcsize(f"<{form}") > len(data):
        raise Unreadable(f"byte {position} of {len(data)} is read")
    return struct.unpack_from(f"<{form}", data, position)[0]
