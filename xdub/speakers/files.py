"""Files of likenesses: face, voice and footprint of every clip of a shard, measured once.

DATA/likeness/KEY/SHARD.parquet has one row a clip; KEY names the networks, and SHARD has 16 hex digits of the sha256 of
the shard. A shard that changes therefore has no file, and a killed run continues where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xdub.config import Recipe, network_digests
from xdub.data.manifest import Manifest
from xdub.errors import UserError
from xdub.files.storage import Location
from xdub.perception.registry import weight_of
from xdub.screen.footprint import Footprint
from xdub.screen.speakers import Likeness

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "likeness"
"""Folder in a data set."""
VERSION = 1
"""Version of the measurements; another version measures again."""
FLOATS, WORDS, HASHES = np.dtype("<f4"), np.dtype("<u4"), np.dtype("<u8")
"""Types of the stored vectors, words of sound and hashes of pictures."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Likeness and footprint of one clip."""

    likeness: Likeness
    footprint: Footprint


def likeness_folder(manifest: Manifest, recipe: Recipe) -> Location:
    """Return the folder of the files that a recipe's networks measure."""
    facts = [
        VERSION,
        recipe.perception.identity,
        network_digests(recipe, ("pairs",), roles=("identity",)),
        weight_of("voice").sha256,
    ]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return manifest.folder / FOLDER / digest


def file_name(manifest: Manifest, shard: int) -> str:
    """Return the name of a shard's file."""
    return f"{manifest.shards[shard].sha256[:16]}.parquet"


def write_measured(path: Location, clips: Sequence[Measured]) -> None:
    """Write the rows of a shard as one file, complete or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "clip_id": one.likeness.clip_id,
            "recording": one.likeness.recording,
            "face": one.likeness.face.astype(FLOATS).tobytes(),
            "voice": one.likeness.voice.astype(FLOATS).tobytes(),
            "sound": one.footprint.sound.astype(WORDS).tobytes(),
            "pictures": one.footprint.pictures.astype(HASHES).tobytes(),
        }
        for one in clips
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_schema()), sink)
    path.write_bytes(memoryview(sink.getvalue()))


def read_measured(path: Location) -> list[Measured]:
    """Read the rows of a file. Raise UserError that names a damaged file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(pa.BufferReader(path.read_bytes()), schema=_schema()).to_pylist()
        return [_measured(row) for row in rows]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"{path}: damaged ({type(error).__name__}); remove it, and repeat the command"
        ) from error


def _measured(row: dict[str, Any]) -> Measured:
    likeness = Likeness(
        clip_id=row["clip_id"],
        recording=row["recording"],
        face=np.frombuffer(row["face"], FLOATS),
        voice=np.frombuffer(row["voice"], FLOATS),
    )
    sound, pictures = np.frombuffer(row["sound"], WORDS), np.frombuffer(row["pictures"], HASHES)
    return Measured(likeness=likeness, footprint=Footprint(sound=sound, pictures=pictures))


def _schema() -> pa.Schema:
    import pyarrow as pa

    texts, blobs = ("clip_id", "recording"), ("face", "voice", "sound", "pictures")
    return pa.schema([*((name, pa.string()) for name in texts), *((name, pa.binary()) for name in blobs)])
