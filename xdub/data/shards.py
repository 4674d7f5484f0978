"""Shards: Parquet files of clips with one row per row group, so that a clip is read without its neighbours.

Shards are written atomically, the manifest last. If the writer is killed, every shard of the manifest is complete; the
next writer adds complete shards that the manifest lacks.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from xdub.data.clip import Clip, from_row, schema, to_row
from xdub.data.manifest import MANIFEST, SHARD_NAME, Manifest, Shard, read_manifest
from xdub.data.verify import verify_shard
from xdub.errors import UserError
from xdub.files.atomic import atomic_path
from xdub.files.content import file_sha256

if TYPE_CHECKING:
    import pyarrow.parquet as pq

LISTED = ("clip_id", "num_frames", "speaker")
"""Columns whose values the manifest lists."""
OPEN_FILES = 8
"""Largest number of files that a reader keeps open."""


class ShardWriter:
    """Writer that adds clips to the data set DIR, new or existing; a data set has one writer at a time.

    `kind` ("clips" or "pairs") is by default the kind of the first clip. `recipe` is stored in the manifest. The writer
    raises UserError if DIR holds the other kind or has another recipe, and if the disk is full.
    """

    def __init__(
        self,
        folder: str | Path,
        rows_per_shard: int = 32,
        *,
        kind: str | None = None,
        recipe: Any = None,
    ) -> None:
        self.folder = Path(folder)
        check_utf8(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be created ({error.strerror}); choose another folder"
            ) from error
        self.rows_per_shard, self.kind, self.recipe = rows_per_shard, kind, recipe
        self._shards: list[Shard] = []
        self._ids: list[str] = []
        self._num_frames: list[int] = []
        # None in a set of an earlier version, whose manifest lacks them.
        self._speakers: list[str] | None = []
        self._rows: list[dict[str, Any]] = []
        self._saved_at, self._save_cost = 0.0, 0.0
        if (self.folder / MANIFEST).exists():
            self._resume(read_manifest(self.folder))
        self._adopt()
        self._known_ids = set(self._ids)

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._known_ids

    def __len__(self) -> int:
        return len(self._known_ids)

    def add(self, clip: Clip) -> bool:
        """Add a clip; return False if its id exists already."""
        return clip.clip_id not in self._known_ids and self.add_row(to_row(clip))

    def add_row(self, row: dict[str, Any]) -> bool:
        """Add a row of `to_row`, perhaps of another process; return False if its id exists already."""
        if row["clip_id"] in self._known_ids:
            return False
        kind = "clips" if row["reference"] is None else "pairs"
        self.kind = self.kind or kind
        if kind != self.kind:
            raise UserError(
                f"{self.folder} holds {self.kind}; {kind} such as {row['clip_id']} need another folder"
            )
        self._rows.append(row)
        self._known_ids.add(row["clip_id"])
        if len(self._rows) >= self.rows_per_shard:
            self.flush()
        return True

    def flush(self) -> None:
        """Write buffered rows as a shard; a large manifest follows only with a later shard."""
        if self._rows:
            self._write_shard()
        # A manifest of 10^5 rows costs a second, so spend at most a twentieth of the time on it.
        if time.monotonic() - self._saved_at >= 20 * self._save_cost:
            self._save()

    def close(self) -> None:
        """Write buffered rows and the manifest."""
        if self._rows:
            self._write_shard()
        self._save()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        # Keep complete rows if the caller fails, unless the disk failed.
        if error_type is None or not issubclass(error_type, (OSError, UserError)):
            self.close()

    def _write_shard(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        numbers = [int(shard.file[6:-8]) for shard in self._shards]
        path = self.folder / f"shard-{max(numbers, default=-1) + 1:05d}.parquet"
        with atomic_path(path) as temporary:
            table = pa.Table.from_pylist(self._rows, schema=schema())
            pq.write_table(
                table,
                temporary.absolute(),  # PyArrow takes `s3:x/shard.parquet` for an address
                row_group_size=1,
                compression="zstd",
                compression_level=1,
                write_page_checksum=True,
            )
        self._register(path, {name: [row[name] for row in self._rows] for name in LISTED})
        self._rows = []

    def _register(self, path: Path, columns: dict[str, list[Any]]) -> None:
        """Add a shard to the manifest with the values of its columns `LISTED`."""
        ids = columns["clip_id"]
        size, digest = path.stat().st_size, file_sha256(path)
        self._shards.append(Shard(file=path.name, rows=len(ids), bytes=size, sha256=digest))
        self._ids += ids
        self._num_frames += columns["num_frames"]
        if self._speakers is not None:
            self._speakers += columns["speaker"]

    def _save(self) -> None:
        begin = time.monotonic()
        Manifest(
            folder=self.folder,
            kind=self.kind or "clips",
            recipe=self.recipe,
            shards=tuple(self._shards),
            ids=tuple(self._ids),
            num_frames=tuple(self._num_frames),
            speakers=None if self._speakers is None else tuple(self._speakers),
        ).save()
        self._saved_at = time.monotonic()
        self._save_cost = self._saved_at - begin

    def _resume(self, manifest: Manifest) -> None:
        if manifest.ids and self.kind not in (None, manifest.kind):
            raise UserError(f"{self.folder} holds {manifest.kind}, not {self.kind}; choose another folder")
        if manifest.ids and None not in (self.recipe, manifest.recipe) and self.recipe != manifest.recipe:
            raise UserError(
                f"{self.folder} was created with another recipe; choose another folder, or remove it"
            )
        if manifest.ids:
            self.kind = manifest.kind
            self.recipe = manifest.recipe if self.recipe is None else self.recipe
        self._shards, self._ids = list(manifest.shards), list(manifest.ids)
        self._num_frames = list(manifest.num_frames)
        if manifest.ids:
            self._speakers = None if manifest.speakers is None else list(manifest.speakers)

    def _adopt(self) -> None:
        """Add shards that were completed after the last manifest, and remove incomplete shards."""
        named = {shard.file for shard in self._shards}
        for leftover in self.folder.glob(".shard-*.parquet"):
            leftover.unlink()
        for path in sorted(self.folder.glob("shard-*.parquet")):
            if path.name in named or not SHARD_NAME.fullmatch(path.name):
                continue
            with _open(path) as file:
                columns = file.read(columns=list(LISTED)).to_pydict()
                first = file.read_row_group(0, columns=["reference"])["reference"][0]
            self.kind = self.kind or ("pairs" if first.is_valid else "clips")
            self._register(path, columns)


class ShardReader:
    """Random access to the rows of a data set. A reader keeps a few files open and serves one thread."""

    def __init__(self, manifest: Manifest, *, verify: bool = False) -> None:
        """With `verify`, a shard whose sha256 differs from the manifest counts as unreadable (see verify.py)."""
        self.manifest, self.verify = manifest, verify
        self._files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._wrong: dict[int, UserError] = {}

    def path(self, index: int) -> Path:
        """Return the file of row `index`."""
        return self.manifest.path(self.manifest.locations[index][0])

    def row(self, index: int) -> dict[str, Any]:
        """Read row `index` of the data set, still encoded. UserError names the file if it cannot be read."""
        import pyarrow as pa

        shard, row = self.manifest.locations[index]
        if shard not in self._files:
            self._verify(shard)
            self._files[shard] = _open(self.manifest.path(shard))
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


def speakers_of(manifest: Manifest) -> tuple[str, ...]:
    """Return the speaker of every row, which sets of earlier versions have in their shards only."""
    if manifest.speakers is not None:
        return manifest.speakers
    names: list[str] = []
    for number in range(len(manifest.shards)):
        with _open(manifest.path(number)) as file:
            names += file.read(columns=["speaker"]).to_pydict()["speaker"]
    return tuple(names)


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


def check_utf8(path: str | Path) -> None:
    """Raise UserError for a file name that is not UTF-8 text, which no Parquet file can hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{ascii(str(path))}: the name is not UTF-8 text; rename the file or folder"
        ) from None


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path.absolute(), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: not a readable shard ({error}); copy or create the data set again"
        ) from error
