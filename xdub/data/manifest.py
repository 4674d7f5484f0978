"""manifest.json, the table of contents of a data set; it is written last, so that every file in it is complete.

{schema_version, kind: "clips" | "pairs", recipe, shards: [{file, rows, bytes, sha256}], ids, num_frames, speakers}
`ids`, `num_frames` and `speakers` list all rows in shard order; sets of earlier versions have no `speakers`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from xdub.data.clip import SCHEMA_VERSION
from xdub.errors import UserError
from xdub.files.atomic import write_text
from xdub.files.content import file_sha256

MANIFEST = "manifest.json"
"""File name of the manifest in a data set."""
SHARD_NAME = re.compile(r"shard-\d{5,}\.parquet")
"""Form of a shard's file name. Only files with such names are opened, so no path leads out of the folder."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One Parquet file of a data set."""

    file: str
    """Name inside the folder."""
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The table of contents of a data set; rows are numbered over all shards in order."""

    folder: Path
    kind: str
    """Either "clips" or "pairs"."""
    recipe: Any
    """JSON value of the settings that all rows share."""
    shards: tuple[Shard, ...]
    ids: tuple[str, ...]
    """Clip id of every row."""
    num_frames: tuple[int, ...]
    """Number of frames of every row."""
    speakers: tuple[str, ...] | None = None
    """Speaker of every row; None in sets of earlier versions, see `xdub.data.shards.speakers_of`."""

    @cached_property
    def digest(self) -> str:
        """16 hex digits that change with the content; a data cursor is valid for one digest only."""
        text = json.dumps([self.kind, [shard.sha256 for shard in self.shards], self.ids])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def beginning(self, shards: int) -> str:
        """Return 16 hex digits that change with the first shards, and not with shards that are added to the set."""
        text = json.dumps([self.kind, [shard.sha256 for shard in self.shards[:shards]]])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def locations(self) -> tuple[tuple[int, int], ...]:
        """(shard, row within the shard) of every row."""
        return tuple((i, row) for i, shard in enumerate(self.shards) for row in range(shard.rows))

    def path(self, shard: int) -> Path:
        """Return the path of a shard by its index."""
        return self.folder / self.shards[shard].file

    def save(self) -> None:
        """Replace manifest.json atomically."""
        raw = {"schema_version": SCHEMA_VERSION, "kind": self.kind, "recipe": self.recipe}
        raw |= {"shards": [asdict(shard) for shard in self.shards]}
        raw |= {"ids": list(self.ids), "num_frames": list(self.num_frames)}
        raw |= {} if self.speakers is None else {"speakers": list(self.speakers)}
        write_text(self.folder / MANIFEST, json.dumps(raw, indent=1) + "\n")


def read_manifest(folder: str | Path, verify: bool = False) -> Manifest:
    """Read a data set's manifest and check version, file names and sizes; with `verify` also every sha256.

    UserError names the file that is missing, truncated or changed.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{folder}: no {MANIFEST}, so not a data set; create one with `xdub render` or `xdub prepare`"
        )
    try:
        raw = json.loads(path.read_text())
        version = raw["schema_version"]
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema_version {version}, this xdub reads {SCHEMA_VERSION}: create it again"
            )
        manifest = Manifest(
            folder=folder,
            kind=raw["kind"],
            recipe=raw["recipe"],
            shards=tuple(Shard(**shard) for shard in raw["shards"]),
            ids=tuple(raw["ids"]),
            num_frames=tuple(raw["num_frames"]),
            speakers=None if raw.get("speakers") is None else tuple(raw["speakers"]),
        )
        rows = sum(shard.rows for shard in manifest.shards)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: damaged ({type(error).__name__}: {error}); create the data set again"
        ) from error
    if manifest.kind not in ("clips", "pairs"):
        raise UserError(f"{path}: kind {manifest.kind!r} is not one of: clips, pairs")
    speakers = manifest.ids if manifest.speakers is None else manifest.speakers
    if not rows == len(manifest.ids) == len(manifest.num_frames) == len(speakers):
        raise UserError(
            f"{path}: damaged, {rows} rows in shards but {len(manifest.ids)} ids; create it again"
        )
    if verify:
        # Hashing releases the interpreter's lock, and one thread is slower than most disks, so hash in one per core.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda shard: check_shard(folder, shard, verify=True), manifest.shards))
    else:
        for shard in manifest.shards:
            check_shard(folder, shard, verify=False)
    return manifest


def check_shard(folder: Path, shard: Shard, verify: bool) -> None:
    """Raise UserError unless the shard's file has the size, and with ``verify`` the sha256, of the manifest."""
    if not SHARD_NAME.fullmatch(shard.file):
        raise UserError(f"{folder / MANIFEST}: {shard.file!r} is not a shard name (shard-NNNNN.parquet)")
    path = folder / shard.file
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{path}: shard is missing; create or copy the data set again")
    size = path.stat().st_size
    if size != shard.bytes:
        raise UserError(f"{path}: {size} bytes, the manifest lists {shard.bytes}: truncated; copy it again")
    if verify and file_sha256(path) != shard.sha256:
        raise UserError(f"{path}: sha256 differs from the manifest: changed after writing; copy it again")
