"""Folders of caches, and what they lack for a data set.

CACHE/DIGEST holds the entries of one `LatentKey`, whose values are in CACHE/DIGEST.json. Each file has the entries of
one shard: DATA-OWN-BYTES.parquet, named by 16 hex digits of the sha256 of the data's shard and of its own, and by its
size. One listing therefore shows which shards are cached, and a shard that was written again has no file.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xdub.config import Recipe
from xdub.data.latent_cache.key import LatentKey, latent_key
from xdub.data.manifest import Manifest, Shard, read_manifest
from xdub.errors import UserError
from xdub.files.storage import Location, locate

LATENTS = "latents"
"""Folder of the caches in a data set, unless the recipe names another one."""
KEY = re.compile(r"[0-9a-f]{16}\.json")
"""Form of the name of a file with the values of a key."""
NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})-(\d+)\.parquet")
"""Form of the name of a file of entries."""


@dataclass(frozen=True)
class CacheFile:
    """One file of entries."""

    name: str
    sha256: str
    """First 16 digits."""
    bytes: int


class CacheFolder:
    """The cache of one key."""

    def __init__(self, folder: str | Path | Location) -> None:
        self.location = locate(folder)

    def __str__(self) -> str:
        return str(self.location)

    def files(self) -> dict[str, CacheFile]:
        """Return the first 16 digits of a data shard's sha256 -> its file of entries; wrong sizes do not count."""
        files: dict[str, CacheFile] = {}
        # Two runs may have computed the same entries with other rounding; every reader chooses the same file.
        for name, size in sorted(self.location.sizes().items(), reverse=True):
            match = NAME.fullmatch(name)
            if match and size == int(match[3]):
                files[match[1]] = CacheFile(name, match[2], size)
        return files

    def missing(self, manifest: Manifest) -> list[int]:
        """Return the indices of a data set's shards that have no file of entries."""
        files = self.files()
        return [i for i, shard in enumerate(manifest.shards) if shard_digits(shard) not in files]


def shard_digits(shard: Shard) -> str:
    """Return the digits by which the cache knows a shard of the data."""
    return shard.sha256[:16]


def cache_root(recipe: Recipe, phase: str, data: str | Path | Location) -> Location:
    """Return the folder of all caches of a data set: `train.latent_cache`, else DATA/latents."""
    root = recipe.for_phase(phase).latent_cache
    return locate(data) / LATENTS if root is None else locate(root)


def required_caches(
    recipe: Recipe, phase: str, data: Sequence[str | Path | Location]
) -> tuple[Location, ...]:
    """Return the folder of the cache of each data set of a phase that trains on cached latents; () for other phases.

    Raise UserError, which names the command, if a shard has no entries.
    """
    if not reads_cache(recipe, phase):
        return ()
    key, folders = latent_key(recipe, phase), []
    for each in map(locate, data):
        manifest, root = read_manifest(each), cache_root(recipe, phase, each)
        folder = CacheFolder(root / key.digest)
        if missing := folder.missing(manifest):
            raise UserError(
                f"{phase}: train.latents=cached, and {len(missing)} of {len(manifest.shards)} shards of {each} have no "
                f"latents in {root}{_others(root, key)}; run `xdub encode --recipe {recipe.name} --data {each}` with "
                "the settings of this run, or --set train.latents=live"
            )
        folders.append(resolved(folder.location))
    return tuple(folders)


def resolved(location: Location) -> Location:
    """Return the location with a real path on a disk, which is the same from every working directory."""
    return location if location.local is None else locate(location.local.resolve())


def reads_cache(recipe: Recipe, phase: str) -> bool:
    """Return whether a phase trains on cached latents."""
    return recipe.for_phase(phase).latents == "cached"


def write_key(root: Location, key: LatentKey) -> CacheFolder:
    """Create the cache of a key in the folder of all caches, unless it exists, and return it."""
    file = root / f"{key.digest}.json"
    if not file.is_file():
        file.write_bytes(json.dumps(key.to_dict(), indent=1).encode() + b"\n")
    folder = CacheFolder(root / key.digest)
    folder.location.make_folder()
    return folder


def _others(root: Location, key: LatentKey) -> str:
    """Return in words how the existing caches of a root differ from a key that has none."""
    names = [name for name in root.sizes() if KEY.fullmatch(name)]
    if f"{key.digest}.json" in names:
        return ""
    differences = []
    for name in names:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            differences.append(key.difference(json.loads((root / name).read_bytes())))
    words = "; or ".join(dict.fromkeys(filter(None, differences)))
    return f" (those there have {words})" if words else ""
