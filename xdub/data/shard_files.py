"""Files of shards: one row a row group, so that a clip is read without its neighbours, and a clip is written alone.

A new shard's name is ``shard-<16 hex>.parquet``, the beginning of its sha256, so any worker writes shards without an
agreement on numbers, and a unit that is done again writes the same file.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdub.data.clip import schema
from xdub.data.manifest_files import ShardFacts
from xdub.errors import UserError
from xdub.files.atomic import DISK_FULL, sync
from xdub.files.content import file_sha256
from xdub.files.storage import Location, locate

if TYPE_CHECKING:
    import pyarrow.parquet as pq

LISTED = ("clip_id", "num_frames", "speaker", "twin_of")
"""Columns whose values the manifest lists."""
UNFINISHED = ".shard-"
"""First letters of the name of a file that is being written."""


def write_shard(folder: str | Path | Location, rows: Iterable[dict[str, Any]]) -> ShardFacts:
    """Write rows of `xdub.data.clip.to_row` as a shard of a folder; return its facts. One row is in memory at a time.

    The file is complete when it appears. A shard without a commit does not belong to the data set.

    Raises:
        UserError: the disk is full, or the rows are of both kinds.
        ValueError: there are no rows.
    """
    folder = locate(folder)
    if folder.local is None:
        with tempfile.TemporaryDirectory(prefix="xdub-shard-") as scratch:
            return _write(folder, Path(scratch), rows)
    folder.make_folder()
    return _write(folder, folder.local, rows)


def _write(folder: Location, scratch: Path, rows: Iterable[dict[str, Any]]) -> ShardFacts:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # PyArrow takes `s3:x/shard.parquet` for an address, so the path is absolute.
    temporary = scratch.absolute() / f"{UNFINISHED}{secrets.token_hex(8)}.parquet"
    listed: dict[str, list[Any]] = {name: [] for name in LISTED}
    kinds: set[str] = set()
    try:
        with pq.ParquetWriter(
            temporary, schema(), compression="zstd", compression_level=1, write_page_checksum=True
        ) as writer:
            for row in rows:
                writer.write_table(pa.Table.from_pylist([row], schema=schema()))
                kinds.add(kind_of(row))
                for name, values in listed.items():
                    values.append(row[name])
        if not kinds:
            raise ValueError("a shard has at least one row")
        if len(kinds) > 1:
            raise UserError(f"{folder}: clips and pairs, such as {listed['clip_id'][0]}, need two folders")
        digest, size = file_sha256(temporary), temporary.stat().st_size
        file = f"shard-{digest[:16]}.parquet"
        if folder.local is None:
            # An upload of the same shard that fails would remove one that a commit names.
            if (folder / file).info().size != size:
                (folder / file).upload(temporary)
        else:
            # The shard survives a power cut before a commit names it.
            with temporary.open("rb") as written:
                sync(written.fileno())
            temporary.replace(folder.local.absolute() / file)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(f"{folder}: the disk is full; free some space and run again") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return facts_of(file, size, digest, kinds.pop(), listed)


def facts_of(file: str, size: int, digest: str, kind: str, listed: dict[str, list[Any]]) -> ShardFacts:
    """Return the facts of a shard from the values of its columns `LISTED`."""
    return ShardFacts(
        file=file,
        rows=len(listed["clip_id"]),
        bytes=size,
        sha256=digest,
        kind=kind,
        ids=tuple(listed["clip_id"]),
        num_frames=tuple(listed["num_frames"]),
        speakers=tuple(listed["speaker"]),
        twins=tuple(listed["twin_of"]),
    )


def kind_of(row: dict[str, Any]) -> str:
    """Return the kind of data set that a row belongs to."""
    return "clips" if row["reference"] is None else "pairs"


def read_facts(path: Location) -> ShardFacts:
    """Read the facts of a complete shard from its file, without its hash. UserError names a damaged file."""
    import pyarrow as pa

    with open_shard(path) as file:
        try:
            columns = file.read(columns=list(LISTED)).to_pydict()
            first = file.read_row_group(0, columns=["reference"])["reference"][0]
        except (pa.ArrowException, OSError, LookupError) as error:
            raise UserError(f"{path}: cannot be read ({error}); copy it again, or remove it") from error
    return facts_of(path.name, path.size(), "", "pairs" if first.is_valid else "clips", columns)


def open_shard(path: Location) -> pq.ParquetFile:
    """Open a shard; every read checks the checksums of its pages. UserError names a file that is not a shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path.open(), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: not a readable shard ({error}); copy or create the data set again"
        ) from error
