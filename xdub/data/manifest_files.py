"""The files of a manifest: its head, its parts, and the parts that rename speakers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xdub.data.columns import Numbers, Shard, Shards, Texts
from xdub.data.parts import Parts
from xdub.errors import UserError
from xdub.files.atomic import write_text
from xdub.files.storage import Location

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.json"
"""File name of the manifest's head in a data set."""
VERSION = 2
"""Version of manifest.json that is written."""
VERSIONS = (1, 2)
"""Versions that are read; version 1 has all columns in manifest.json."""
MANIFEST_PARTS, SPEAKER_PARTS = "manifest", "speakers"
"""Folders of the parts in a data set."""
KINDS = ("clips", "pairs")
"""Possible contents of a data set."""


@dataclass(frozen=True, kw_only=True)
class ShardFacts(Shard):
    """A complete shard with the columns of its rows; a worker returns it in place of the pixels."""

    kind: str
    """Either "clips" or "pairs"."""
    ids: tuple[str, ...]
    num_frames: tuple[int, ...]
    speakers: tuple[str, ...]
    twins: tuple[str | None, ...]
    """`Clip.twin_of` of every row."""
    skipped: tuple[int, ...] = ()
    """Rows that do not count, because the data set has their clips."""


def manifest_schema() -> pa.Schema:
    """Return the columns of a part: one row a shard."""
    import pyarrow as pa

    return pa.schema(
        [
            ("file", pa.string()),
            ("rows", pa.int64()),
            ("bytes", pa.int64()),
            ("sha256", pa.string()),
            ("ids", pa.list_(pa.string())),
            ("num_frames", pa.list_(pa.int32())),
            ("speakers", pa.list_(pa.string())),
            ("twins", pa.list_(pa.string())),
            ("skipped", pa.list_(pa.int32())),
        ]
    )


def manifest_parts(folder: Location) -> Parts:
    """Return the parts of a data set's manifest."""
    return Parts(folder / MANIFEST_PARTS, manifest_schema())


def facts_table(facts: Sequence[ShardFacts]) -> pa.Table:
    """Return a part's table."""
    import pyarrow as pa

    schema = manifest_schema()
    rows = [{name: getattr(each, name) for name in schema.names} for each in facts]
    return pa.Table.from_pylist(rows, schema=schema)


def speaker_parts(folder: Location) -> Parts:
    """Return the parts that rename the speakers of a data set's clips."""
    import pyarrow as pa

    return Parts(
        folder / SPEAKER_PARTS, pa.schema([("clip_id", pa.string()), ("speaker", pa.string())]), _last_rows
    )


def assign_speakers(folder: Location, clip_ids: Sequence[str], speakers: Sequence[str]) -> None:
    """Replace the speakers of clips in the manifest; the shards keep theirs. The caller holds the lock of speakers."""
    import pyarrow as pa

    parts = speaker_parts(folder)
    parts.append(pa.table({"clip_id": list(clip_ids), "speaker": list(speakers)}, schema=parts.schema))


def write_head(folder: Location, kind: str, recipe: Any) -> None:
    """Write manifest.json."""
    _write_json(
        folder / MANIFEST,
        {"schema_version": VERSION, "kind": kind, "recipe": recipe, "parts": MANIFEST_PARTS},
    )


def record_recipe(folder: Location, recipe: Any) -> None:
    """Write a recipe into a manifest.json that has none; its other values stay."""
    _write_json(folder / MANIFEST, json.loads((folder / MANIFEST).read_bytes()) | {"recipe": recipe})


def _write_json(path: Location, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1) + "\n"
    if path.local is not None:
        write_text(path.local, text)
    else:
        path.write_bytes(text.encode())


@dataclass(frozen=True, kw_only=True)
class Head:
    """The content of manifest.json; in version 1 with the columns of the first shards."""

    version: int
    kind: str
    recipe: Any
    shards: tuple[Shard, ...] = ()
    ids: tuple[str, ...] = ()
    num_frames: tuple[int, ...] = ()
    speakers: tuple[str, ...] | None = None


def read_head(folder: Location) -> Head:
    """Read manifest.json. Raise UserError if it is missing, damaged or of another version."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder}: no {MANIFEST}, so not a data set; create one with `xdub render` or `xdub prepare`"
        ) from None
    try:
        raw = json.loads(content)
        version = raw["schema_version"]
        if version not in VERSIONS:
            raise UserError(
                f"{path}: schema_version {version}, this xdub reads {VERSIONS[-1]}: create it again"
            )
        head = Head(version=version, kind=raw["kind"], recipe=raw["recipe"])
        if version == 1:
            head = Head(
                version=version,
                kind=raw["kind"],
                recipe=raw["recipe"],
                shards=tuple(Shard(**shard) for shard in raw["shards"]),
                ids=tuple(raw["ids"]),
                num_frames=tuple(raw["num_frames"]),
                speakers=None if raw.get("speakers") is None else tuple(raw["speakers"]),
            )
        rows = sum(shard.rows for shard in head.shards)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: damaged ({type(error).__name__}: {error}); create the data set again"
        ) from error
    if head.kind not in KINDS:
        raise UserError(f"{path}: kind {head.kind!r} is not one of: {', '.join(KINDS)}")
    speakers = head.ids if head.speakers is None else head.speakers
    if not rows == len(head.ids) == len(head.num_frames) == len(speakers):
        raise UserError(f"{path}: damaged, {rows} rows in shards but {len(head.ids)} ids; create it again")
    return head


def load_columns(folder: Location) -> dict[str, Any]:
    """Return the fields of a `Manifest` from head and parts; no shard is opened. UserError names a damaged file."""
    import pyarrow as pa

    head = read_head(folder)
    table = _read_parts(manifest_parts(folder))
    skipped, counted = _skipped(table, len(head.shards))

    def rows(name: str, base: Sequence[Any], kind: pa.DataType) -> pa.Array:
        """Return the values of all rows that count."""
        values = _array(table[name]).flatten()
        values = values if counted is None else values.filter(pa.array(counted))
        return pa.concat_arrays([pa.array(list(base), kind), values.cast(kind)])

    def shards(name: str, kind: pa.DataType) -> pa.Array:
        """Return the values of all shards."""
        base = pa.array([getattr(shard, name) for shard in head.shards], kind)
        return pa.concat_arrays([base, _array(table[name]).cast(kind)])

    text = pa.large_string()
    ids = rows("ids", head.ids, text)
    speakers = None
    # A set that was begun without speakers has the only complete list in its shards.
    if not head.ids or head.speakers is not None:
        speakers = rows("speakers", head.speakers or (), text).dictionary_encode()
    return {
        "folder": folder,
        "kind": head.kind,
        "recipe": head.recipe,
        "shards": Shards(
            Texts(shards("file", text)),
            Numbers(shards("rows", pa.int64()).to_numpy()),
            Numbers(shards("bytes", pa.int64()).to_numpy()),
            Texts(shards("sha256", text)),
        ),
        "ids": Texts(ids),
        "num_frames": Numbers(rows("num_frames", head.num_frames, pa.int32()).to_numpy()),
        "speakers": None if speakers is None else Texts(renamed_speakers(folder, ids, speakers)),
        "twins": None if head.ids else Texts(rows("twins", (), text)),
        "skipped": skipped,
    }


def renamed_speakers(folder: Location, ids: pa.Array, speakers: pa.Array) -> pa.Array:
    """Return the speakers of all rows after the parts of the folder ``speakers``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tables = speaker_parts(folder).read_all()
    if not tables:
        return speakers
    table = _last_rows(pa.concat_tables(tables))
    position = pc.call_function(
        "index_in", [ids], pc.SetLookupOptions(_array(table["clip_id"]).cast(ids.type))
    )
    renamed = _array(table["speaker"]).cast(ids.type).take(position)
    return pc.call_function("coalesce", [renamed, speakers.dictionary_decode()]).dictionary_encode()


def _read_parts(parts: Parts) -> pa.Table:
    """Read all parts of a manifest. Raise UserError that names a part whose columns do not fit together."""
    import pyarrow as pa

    opened = parts.open_all()
    tables = [manifest_schema().empty_table()]
    for (part, _), table in zip(opened, parts.read(opened), strict=True):
        lengths = [_array(table[name]).value_lengths() for name in ("ids", "num_frames", "speakers", "twins")]
        if not all(length.cast(pa.int64()).equals(_array(table["rows"])) for length in lengths):
            raise UserError(f"{parts.folder / part.name}: damaged, its lists are not as long as its shards")
        tables.append(table)
    return pa.concat_tables(tables)


def _skipped(table: pa.Table, base: int) -> tuple[tuple[tuple[int, int], ...], np.ndarray | None]:
    """Return (shard, row) of the rows that do not count, and whether [n] each row of the table's shards counts.

    ``base`` is the number of shards before the table. The second value is None if all rows count.
    """
    lists = _array(table["skipped"])
    shards = lists.value_parent_indices().to_numpy()
    if not len(shards):
        return (), None
    rows = lists.flatten().to_numpy()
    sizes = table["rows"].to_numpy()
    counted = np.ones(int(sizes.sum()), bool)
    counted[(np.cumsum(sizes) - sizes)[shards] + rows] = False
    return tuple(sorted(zip((shards + base).tolist(), rows.tolist(), strict=True))), counted


def _last_rows(table: pa.Table) -> pa.Table:
    """Return a table of speakers with the last row of each clip only."""
    ids = table["clip_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    _, reverse = np.unique(ids[::-1], return_index=True)
    return table.take(np.sort(len(ids) - 1 - reverse))


def _array(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    import pyarrow as pa

    chunks = column.combine_chunks()
    return pa.concat_arrays(chunks.chunks) if isinstance(chunks, pa.ChunkedArray) else chunks
