"""Reader of CTranslate2's `model.bin`, which needs neither its library nor code of the package that holds the file.

uint32 version 6; name of the model; uint32 revision; uint32 number of variables
variable: name; uint8 rank; uint32 sizes; uint8 type; uint32 bytes; data, little-endian
uint32 number of aliases; alias: name; name of its variable
name: uint16 length with the final zero; characters
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from xdub.errors import UserError

VERSION = 6
"""Version of the layout that the reader knows."""
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
"""Types of variables by their numbers."""
MAX_RANK = 8
"""Largest number of sizes of a variable; a larger number is damage."""


def read_model_bin(path: str | Path) -> dict[str, np.ndarray]:
    """Return all variables of a file by name, aliases included. Raise UserError if it is damaged or of another kind."""
    path = Path(path)
    try:
        return _read(_Cursor(path.read_bytes()))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except _DamageError as error:
        raise UserError(
            f"{path}: not a readable CTranslate2 model ({error}); fetch or copy it again"
        ) from error


class _DamageError(Exception):
    """The file differs from the layout."""


class _Cursor:
    """Position in the bytes of a file; reading beyond the end raises `_DamageError`."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, count: int) -> memoryview:
        """Return the next ``count`` bytes."""
        if count > len(self.data) - self.position:
            raise _DamageError(f"it ends at byte {len(self.data)} in the middle of an entry")
        self.position += count
        return memoryview(self.data)[self.position - count : self.position]

    def number(self, code: str) -> int:
        """Return the next little-endian integer, whose type is a code of the module struct."""
        return struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]

    def name(self) -> str:
        """Return the next name."""
        raw = bytes(self.take(self.number("H")))
        if not raw.endswith(b"\0") or not raw[:-1].isascii():
            raise _DamageError(f"no name at byte {self.position - len(raw)}")
        return raw[:-1].decode("ascii")


def _read(cursor: _Cursor) -> dict[str, np.ndarray]:
    if (version := cursor.number("I")) != VERSION:
        raise _DamageError(f"layout version {version}, expected {VERSION}")
    cursor.name()
    cursor.number("I")
    variables = dict(_variable(cursor) for _ in range(cursor.number("I")))
    for _ in range(cursor.number("I")):
        alias, name = cursor.name(), cursor.name()
        if name not in variables:
            raise _DamageError(f"alias of {name}, which does not exist")
        variables[alias] = variables[name]
    if cursor.position != len(cursor.data):
        raise _DamageError(f"{len(cursor.data) - cursor.position} bytes follow its end")
    return variables


def _variable(cursor: _Cursor) -> tuple[str, np.ndarray]:
    name, rank = cursor.name(), cursor.number("B")
    if rank > MAX_RANK:
        raise _DamageError(f"{name} has {rank} dimensions")
    shape = tuple(cursor.number("I") for _ in range(rank))
    number, size = cursor.number("B"), cursor.number("I")
    if number not in TYPES:
        raise _DamageError(f"{name} has the unknown type {number}")
    dtype = np.dtype(TYPES[number]).newbyteorder("<")
    # An empty variable may have other sizes that no array can have.
    if math.prod(shape) * dtype.itemsize != size or not size:
        raise _DamageError(f"{name} has {size} bytes for the shape {list(shape)}")
    return name, np.frombuffer(cursor.take(size), dtype).reshape(shape)
