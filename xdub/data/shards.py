"""Data sets in one process: a writer that adds clips, and a reader of single rows.

A writer commits each shard with its part of the manifest (`xdub.data.dataset`). If it is killed, the data set has every
shard that was committed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from xdub.data.clip import Clip, from_row, to_row
from xdub.data.columns import Texts
from xdub.data.dataset import DataSet, check_utf8
from xdub.data.manifest import Manifest, read_manifest
from xdub.data.manifest_files import renamed_speakers, speaker_parts
from xdub.data.shard_files import kind_of, open_shard, write_shard
from xdub.data.verify import verify_shard
from xdub.errors import UserError
from xdub.files.storage import Location

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = ["ShardReader", "ShardWriter", "check_utf8", "iter_clips", "read_clip", "speakers_of", "twins_of"]

OPEN_FILES = 8
"""Largest number of files that a reader keeps open."""


class ShardWriter:
    """Writer that adds clips to the data set DIR, new or existing; a data set has one writer at a time.

    `kind` ("clips" or "pairs") is by default the kind of the first clip. `recipe` is stored in the manifest. The writer
    raises UserError if DIR holds the other kind or has another recipe, and if the disk is full.
    """

    def __init__(
        self,
        folder: str | Path | Location,
        rows_per_shard: int = 32,
        *,
        kind: str | None = None,
        recipe: Any = None,
    ) -> None:
        self.dataset = DataSet(folder, kind=kind, recipe=recipe)
        self.folder, self.rows_per_shard = self.dataset.folder, rows_per_shard
        self._rows: dict[str, dict[str, Any]] = {}

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._rows or clip_id in self.dataset

    def __len__(self) -> int:
        return len(self.dataset) + len(self._rows)

    @property
    def kind(self) -> str | None:
        """Kind of the rows; None before the first one."""
        return self.dataset.kind

    def add(self, clip: Clip) -> bool:
        """Add a clip; return False if its id exists already."""
        return clip.clip_id not in self and self.add_row(to_row(clip))

    def add_row(self, row: dict[str, Any]) -> bool:
        """Add a row of `to_row`, perhaps of another process; return False if its id exists already."""
        if row["clip_id"] in self:
            return False
        self.dataset.check_kind(kind_of(row), row["clip_id"])
        self._rows[row["clip_id"]] = row
        if len(self._rows) >= self.rows_per_shard:
            self.flush()
        return True

    def flush(self) -> None:
        """Write buffered rows as a shard and commit it."""
        if self._rows:
            self.dataset.commit([write_shard(self.folder, self._rows.values())])
            self._rows = {}

    def close(self) -> None:
        """Write buffered rows, and manifest.json if there were none."""
        self.flush()
        self.dataset.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        try:
            # Keep complete rows if the caller fails, unless the disk failed.
            if error_type is None or not issubclass(error_type, (OSError, UserError)):
                self.close()
        finally:
            self.dataset.release()


class ShardReader:
    """Random access to the rows of a data set. A reader keeps a few files open and serves one thread."""

    def __init__(self, manifest: Manifest, *, verify: bool = False) -> None:
        """With `verify`, a shard whose sha256 differs from the manifest counts as unreadable (see verify.py)."""
        self.manifest, self.verify = manifest, verify
        self._files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._wrong: dict[int, UserError] = {}

    def path(self, index: int) -> Location:
        """Return the file of row `index`."""
        return self.manifest.path(self.manifest.location(index)[0])

    def row(self, index: int) -> dict[str, Any]:
        """Read row `index` of the data set, still encoded. UserError names the file if it cannot be read."""
        import pyarrow as pa

        shard, row = self.manifest.location(index)
        if shard not in self._files:
            self._verify(shard)
            self._files[shard] = open_shard(self.manifest.path(shard))
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(shard)
        try:
            return self._files[shard].read_row_group(row).to_pylist()[0]
        except (pa.ArrowException, OSError, IndexError) as error:
            raise UserError(f"{self.manifest.path(shard)}, row {row}: cannot be read ({error})") from error

    def _verify(self, shard: int) -> None:
        if shard in self._wrong:
            raise self._wrong[shard]
        if self.verify:
            try:
                verify_shard(self.manifest.path(shard), self.manifest.shards[shard])
            except UserError as error:
                self._wrong[shard] = error
                raise

    def clip(self, index: int) -> Clip:
        """Read and decode row `index`."""
        return from_row(self.row(index))


def speakers_of(manifest: Manifest) -> Sequence[str]:
    """Return the speaker of every row, which sets of earlier versions have in their shards only."""
    if manifest.speakers is not None:
        return manifest.speakers
    ids, speakers = Texts.of(manifest.ids).array, _values(manifest, "speaker").array
    return Texts(renamed_speakers(manifest.folder, ids, speakers.dictionary_encode()))


def has_renamed_speakers(manifest: Manifest) -> bool:
    """Return whether `xdub speakers` replaced speakers of the data set."""
    return any(not name.startswith(".") for name in speaker_parts(manifest.folder).folder.sizes())


def twins_of(manifest: Manifest) -> Sequence[str | None]:
    """Return `Clip.twin_of` of every row, which sets of earlier versions have in their shards only."""
    return _values(manifest, "twin_of") if manifest.twins is None else manifest.twins


def _values(manifest: Manifest, column: str) -> Texts:
    """Read a column of texts from all shards."""
    import pyarrow as pa

    values = []
    for number in range(len(manifest.shards)):
        with open_shard(manifest.path(number)) as file:
            values += file.read(columns=[column])[column].chunks
    texts = pa.concat_arrays([pa.array([], pa.string()), *values])
    if manifest.skipped:
        first = np.concatenate([[0], np.cumsum([shard.rows for shard in manifest.shards])])
        keep = np.ones(len(texts), bool)
        keep[[first[shard] + row for shard, row in manifest.skipped]] = False
        texts = texts.filter(pa.array(keep))
    return Texts(texts.cast(pa.large_string()))


def iter_clips(folder: str | Path) -> Iterator[Clip]:
    """Yield all clips of a data set in the order of its manifest."""
    manifest = read_manifest(folder)
    reader = ShardReader(manifest)
    for index in range(len(manifest.ids)):
        yield reader.clip(index)


def read_clip(folder: str | Path, clip_id: str) -> Clip:
    """Read one clip by its id. Raise UserError if the data set does not hold the clip."""
    manifest = read_manifest(folder)
    if clip_id not in manifest.ids:
        raise UserError(f"{folder} has no clip {clip_id!r} among its {len(manifest.ids)}")
    return ShardReader(manifest).clip(manifest.ids.index(clip_id))
