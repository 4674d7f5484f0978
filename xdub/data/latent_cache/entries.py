"""The file of entries of one data shard: Parquet with one row a row group, so that a sample is read without others.

The rows of a clip are its windows, in the order of their starts, and then its reference frames. The file's metadata
have the index, so opening reads the footer alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xdub.errors import UserError
from xdub.files.storage import Location

if TYPE_CHECKING:
    import pyarrow as pa

INDEX = b"xdub.latents"
"""Key of the index in the file's metadata."""
LATENTS = ("z0", "z_mask", "z_ref", "audio")
"""Columns in the precision of the cache; bf16 has the bits of its numbers, uint16."""
MASKS = ("face_mask", "lip_mask")
"""Columns of bits."""
OTHERS = ("landmarks", "sound")
"""Columns of fp32."""
COLUMNS = (*LATENTS, *MASKS, *OTHERS)


@dataclass(frozen=True, kw_only=True)
class ClipEntries:
    """The entries of one clip."""

    clip_id: str
    num_frames: int
    first: int
    """Row of its first window."""
    windows: int
    """Number of windows."""
    references: int
    """Number of reference frames, whose rows follow those of the windows."""
    elsewhere: bool = False
    """True if the reference frames are those of another segment, `xdub.data.clip.Clip.references`."""
    error: str = ""
    """Reason why the clip has no entries; "" if it has."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """Content of a file of entries."""

    data: str
    """Sha256 of the data's shard."""
    precision: str
    shapes: dict[str, list[int]]
    """Column -> shape of its arrays; a row has the columns that its kind of entry has."""
    clips: tuple[ClipEntries, ...]
    """Clips in the order of the data's shard."""


class EntryWriter:
    """Writer of one file, entry by entry, so that memory does not grow with the shard."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema([(name, pa.binary()) for name in COLUMNS])
        self._file = pq.ParquetWriter(
            path.absolute(),
            self._schema,
            # Numbers of latents do not shrink.
            compression={name: "NONE" if name in LATENTS else "ZSTD" for name in COLUMNS},
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        )
        self.rows = 0
        self.shapes: dict[str, list[int]] = {}

    def add(self, entry: Mapping[str, np.ndarray]) -> None:
        """Append an entry. Raise UserError if an array has another shape than in earlier entries."""
        import pyarrow as pa

        for name, array in entry.items():
            shape = self.shapes.setdefault(name, list(array.shape))
            if shape != list(array.shape):
                raise UserError(f"{name} is {list(array.shape)}, in earlier clips of the shard {shape}")
        row = {name: [_packed(entry[name], name)] if name in entry else [None] for name in COLUMNS}
        self._file.write_table(pa.table(row, schema=self._schema))
        self.rows += 1

    def close(self, *, data: str, precision: str, clips: Sequence[ClipEntries]) -> None:
        """Write the index and end the file."""
        index = {"data": data, "precision": precision, "shapes": self.shapes}
        index["clips"] = [asdict(clip) for clip in clips]
        self._file.add_key_value_metadata({INDEX.decode(): json.dumps(index)})
        self._file.close()

    def abandon(self) -> None:
        """End a file that will be removed."""
        self._file.close()


class EntryFile:
    """Random access to the entries of one file."""

    def __init__(self, path: Location) -> None:
        """Open the file and read its index. Raise UserError if it is damaged."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            self._file = pq.ParquetFile(path.open(), page_checksum_verification=True)
            raw = json.loads(self._file.metadata.metadata[INDEX])
            clips = tuple(ClipEntries(**clip) for clip in raw.pop("clips"))
            self.index = Index(clips=clips, **raw)
            self.clips = {clip.clip_id: clip for clip in clips}
            """Clip id -> its entries."""
        except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not a readable file of latents ({error}); {RENEW}") from error

    def entry(self, row: int, columns: Sequence[str] = COLUMNS) -> dict[str, np.ndarray]:
        """Return the arrays of a row. Raise UserError if they cannot be read."""
        import pyarrow as pa

        names = [name for name in columns if name in self.index.shapes]
        try:
            table = self._file.read_row_group(row, columns=names, use_threads=False)
            values = {name: table.column(name)[0] for name in names}
            return {name: self._unpacked(value, name) for name, value in values.items() if value.is_valid}
        except (pa.ArrowException, OSError, LookupError, ValueError) as error:
            raise UserError(f"{self.path}, row {row}: cannot be read ({error}); {RENEW}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close(force=True)

    def _unpacked(self, value: pa.Scalar, name: str) -> np.ndarray:
        shape, buffer = self.index.shapes[name], value.as_buffer()
        if name in MASKS:
            bits = np.unpackbits(np.frombuffer(buffer, np.uint8), count=int(np.prod(shape)))
            return bits.reshape(shape).astype(np.float32)
        half = name in LATENTS and self.index.precision == "bf16"
        return np.frombuffer(buffer, "<u2" if half else "<f4").reshape(shape)


RENEW = "run `xdub encode --verify` to compute it again"
"""Remedy for a damaged file."""


def _packed(array: np.ndarray, name: str) -> bytes:
    if name in MASKS:
        return np.packbits(array.astype(bool)).tobytes()
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).tobytes()
