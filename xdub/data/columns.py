"""Columns of a data set's manifest: sequences over Arrow and NumPy arrays, without a Python object a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 1 << 14
"""Rows that are converted to Python objects at a time."""


class Texts(Sequence[str]):
    """Texts in an Arrow array."""

    def __init__(self, array: pa.Array) -> None:
        """``array`` holds strings, plain or dictionary-encoded."""
        self.array = array

    @classmethod
    def of(cls, texts: Sequence[str | None]) -> Texts:
        """Return the column of a sequence, or the column itself."""
        import pyarrow as pa

        return texts if isinstance(texts, Texts) else cls(pa.array(list(texts), pa.large_string()))

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return tuple(self.array[index].to_pylist())
        return self.array[int(index)].as_py()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), CHUNK):
            yield from self.array[start : start + CHUNK].to_pylist()

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and self._find(text) >= 0

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """Return the position of the first equal text between two positions. Raise ValueError if there is none."""
        position = Texts(self.array[start:stop])._find(value)
        if position < 0:
            raise ValueError(f"{value!r} is not in the column")
        return start + position

    def codes(self) -> tuple[np.ndarray, list[str]]:
        """Return the number [n] of each row's text, and the different texts by number in the order of their rows."""
        import pyarrow as pa

        encoded = self.array if pa.types.is_dictionary(self.array.type) else self.array.dictionary_encode()
        return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()

    def _find(self, text: str) -> int:
        import pyarrow as pa
        import pyarrow.compute as pc

        plain = self.array.dictionary_decode() if pa.types.is_dictionary(self.array.type) else self.array
        return pc.index(plain, pa.scalar(text, plain.type)).as_py()

    def __repr__(self) -> str:
        return f"Texts({len(self)})"


class Numbers(Sequence[int]):
    """Integers in a NumPy array [n]."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Numbers:
        """Return the column of a sequence, or the column itself."""
        return numbers if isinstance(numbers, Numbers) else cls(np.array(list(numbers), np.int64))

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return tuple(self.array[index].tolist())
        return int(self.array[index])

    def __iter__(self) -> Iterator[int]:
        for start in range(0, len(self), CHUNK):
            yield from self.array[start : start + CHUNK].tolist()

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None

    def __repr__(self) -> str:
        return f"Numbers({len(self)})"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One Parquet file of a data set."""

    file: str
    """Name inside the folder."""
    rows: int
    bytes: int
    sha256: str


class Shards(Sequence[Shard]):
    """The shards of a data set."""

    def __init__(self, file: Texts, rows: Numbers, size: Numbers, sha256: Texts) -> None:
        self.file, self.rows, self.bytes, self.sha256 = file, rows, size, sha256

    @classmethod
    def of(cls, shards: Sequence[Shard]) -> Shards:
        """Return the columns of a sequence, or the columns themselves."""
        if isinstance(shards, Shards):
            return shards
        return cls(
            Texts.of([shard.file for shard in shards]),
            Numbers.of([shard.rows for shard in shards]),
            Numbers.of([shard.bytes for shard in shards]),
            Texts.of([shard.sha256 for shard in shards]),
        )

    def __len__(self) -> int:
        return len(self.file)

    @overload
    def __getitem__(self, index: int) -> Shard: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Shard, ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        return Shard(
            file=self.file[index], rows=self.rows[index], bytes=self.bytes[index], sha256=self.sha256[index]
        )

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None


def _equal(column: Sequence[Any], other: object) -> bool:
    """Return whether two sequences have equal items."""
    if not isinstance(other, Sequence) or isinstance(other, str):
        return NotImplemented
    return len(column) == len(other) and all(a == b for a, b in zip(column, other, strict=True))
