"""The manifest of a data set: its shards and the columns of their rows that planning and training need.

manifest.json, {schema_version, kind: "clips" | "pairs", recipe, parts: "manifest"}, is written once. The folder
``manifest`` has one part a commit (`xdub.data.parts`) with one row a shard: file, rows, bytes, sha256, and the lists
ids, num_frames, speakers, twins of its rows. `skipped` lists rows that do not count, because an earlier shard has
their clips. Parts of the folder ``speakers``, {clip_id, speaker}, replace the speakers of clips.

A set of an earlier version lists its shards, ids, num_frames and perhaps speakers in manifest.json. Parts follow them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from xdub.data.columns import CHUNK, Numbers, Shard, Shards, Texts
from xdub.data.manifest_files import MANIFEST, load_columns
from xdub.errors import UserError
from xdub.files.content import file_sha256
from xdub.files.storage import Location, locate

SHARD_NAME = re.compile(r"shard-(?:\d{5,15}|[0-9a-f]{16})\.parquet")
"""Form of a shard's file name. Only files with such names are opened, so no path leads out of the folder."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The table of contents of a data set; rows are numbered over all shards in order."""

    folder: Location
    kind: str
    """Either "clips" or "pairs"."""
    recipe: Any
    """JSON value of the settings that all rows share."""
    shards: Sequence[Shard]
    ids: Sequence[str]
    """Clip id of every row."""
    num_frames: Sequence[int]
    """Number of frames of every row."""
    speakers: Sequence[str] | None = None
    """Speaker of every row; None in sets of earlier versions, see `xdub.data.shards.speakers_of`."""
    twins: Sequence[str | None] | None = None
    """`Clip.twin_of` of every row; None in sets of earlier versions, see `xdub.data.shards.twins_of`."""
    skipped: tuple[tuple[int, int], ...] = ()
    """(shard, row within the shard) of rows that do not count, ascending."""

    def __post_init__(self) -> None:
        columns = {
            "folder": locate(self.folder),
            "shards": Shards.of(self.shards),
            "ids": Texts.of(self.ids),
            "num_frames": Numbers.of(self.num_frames),
            "speakers": None if self.speakers is None else Texts.of(self.speakers),
            "twins": None if self.twins is None else Texts.of(self.twins),
        }
        for name, value in columns.items():
            object.__setattr__(self, name, value)

    @cached_property
    def digest(self) -> str:
        """16 hex digits that change with the content; a data cursor is valid for one digest only."""
        digest = hashlib.sha256(f"[{json.dumps(self.kind)}, [".encode())
        for texts, end in ((Shards.of(self.shards).sha256, "], ["), (self.ids, "]]")):
            for start in range(0, len(texts), CHUNK):
                separator = ", " if start else ""
                digest.update((separator + json.dumps(texts[start : start + CHUNK])[1:-1]).encode())
            digest.update(end.encode())
        return digest.hexdigest()[:16]

    def beginning(self, shards: int) -> str:
        """Return 16 hex digits that change with the first shards, and not with shards that are added to the set."""
        text = json.dumps([self.kind, Shards.of(self.shards).sha256[:shards]])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def row_places(self) -> tuple[np.ndarray, np.ndarray]:
        """Shard [n] int32 and row within the shard [n] int32 of every row."""
        counts = Numbers.of(Shards.of(self.shards).rows).array
        shard = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        first = np.cumsum(counts) - counts
        row = (np.arange(len(shard)) - np.repeat(first, counts)).astype(np.int32)
        if self.skipped:
            numbers = [int(first[number]) + offset for number, offset in self.skipped]
            shard, row = np.delete(shard, numbers), np.delete(row, numbers)
        return shard, row

    @cached_property
    def first_rows(self) -> np.ndarray:
        """Number of the first row of every shard, and the number of rows [shards + 1]."""
        counts = Numbers.of(Shards.of(self.shards).rows).array.copy()
        for shard, _ in self.skipped:
            counts[shard] -= 1
        return np.concatenate([[0], np.cumsum(counts)])

    def rows_of(self, shard: int) -> range:
        """Return the numbers of a shard's rows."""
        return range(int(self.first_rows[shard]), int(self.first_rows[shard + 1]))

    @property
    def locations(self) -> Sequence[tuple[int, int]]:
        """(shard, row within the shard) of every row."""
        return _Locations(*self.row_places)

    def location(self, index: int) -> tuple[int, int]:
        """Return (shard, row within the shard) of a row."""
        shard, row = self.row_places
        return int(shard[index]), int(row[index])

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return int(Shards.of(self.shards).bytes.array.sum())

    @property
    def frames(self) -> int:
        """Number of frames of all rows."""
        return int(Numbers.of(self.num_frames).array.sum())

    def path(self, shard: int) -> Location:
        """Return the file of a shard by its index."""
        return self.folder / self.shards[shard].file


class _Locations(Sequence[tuple[int, int]]):
    """Pairs of two arrays."""

    def __init__(self, shard: np.ndarray, row: np.ndarray) -> None:
        self._shard, self._row = shard, row

    def __len__(self) -> int:
        return len(self._shard)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(zip(self._shard[index].tolist(), self._row[index].tolist(), strict=True))
        return int(self._shard[index]), int(self._row[index])


def read_manifest(folder: str | Path | Location, verify: bool = False) -> Manifest:
    """Read a data set's manifest and check version, file names and sizes; with `verify` also every sha256.

    UserError names the file that is missing, truncated or changed.
    """
    manifest = Manifest(**load_columns(locate(folder)))
    check_shards(manifest, manifest.folder.sizes(), verify=verify)
    return manifest


def check_shards(manifest: Manifest, sizes: Mapping[str, int], *, verify: bool) -> None:
    """Check names and sizes of all shards against a listing of the folder; with ``verify`` also every sha256."""
    folder, shards = manifest.folder, Shards.of(manifest.shards)
    for file, expected in zip(shards.file, shards.bytes, strict=True):
        _check_size(folder, file, expected, sizes.get(file))
    if verify:
        # Hashing releases the interpreter's lock, and one thread is slower than most disks, so hash in one per core.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda shard: _check_hash(folder, shard), shards))


def check_shard(folder: Location, shard: Shard, verify: bool) -> None:
    """Raise UserError unless the shard's file has the size, and with ``verify`` the sha256, of the manifest."""
    path = folder / shard.file if SHARD_NAME.fullmatch(shard.file) else None
    is_link = path is not None and path.local is not None and path.local.is_symlink()
    info = None if path is None or is_link else path.info()
    _check_size(folder, shard.file, shard.bytes, info.size if info is not None and info.is_file else None)
    if verify:
        _check_hash(folder, shard)


def _check_size(folder: Location, file: str, expected: int, size: int | None) -> None:
    if not SHARD_NAME.fullmatch(file):
        raise UserError(f"{folder / MANIFEST}: {file!r} is not a shard name (shard-NNNNN.parquet)")
    if size is None:
        raise UserError(f"{folder / file}: shard is missing; create or copy the data set again")
    if size != expected:
        raise UserError(
            f"{folder / file}: {size} bytes, the manifest lists {expected}: truncated; copy it again"
        )


def _check_hash(folder: Location, shard: Shard) -> None:
    path = folder / shard.file
    digest = file_sha256(path.local) if path.local is not None else sha256_of(path)
    if digest != shard.sha256:
        raise UserError(f"{path}: sha256 differs from the manifest: changed after writing; copy it again")


def sha256_of(path: Location) -> str:
    """Return the hex digest of a file of any size in any file system."""
    digest = hashlib.sha256()
    for piece in _pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(path: Location) -> Iterator[bytes]:
    with path.open() as file:
        while piece := file.read(8 << 20):
            yield piece
