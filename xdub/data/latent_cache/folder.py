"""Folders of caches, and what they lack for a data set.

CACHE/DIGEST holds the entries of one `LatentKey`, whose values are in key.json. Each of its other files has the
entries of one shard: DATA-OWN-BYTES.parquet, named by 16 hex digits of the sha256 of the data's shard and of its own,
and by its size. One listing therefore shows which shards are cached, and a shard that was written again has no file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xdub.config import Recipe
from xdub.data.latent_cache.key import LatentKey, latent_key
from xdub.data.manifest import Manifest, Shard, read_manifest
from xdub.errors import UserError

LATENTS = "latents"
"""Folder of the caches in a data set, unless the recipe names another one."""
KEY = "key.json"
"""File with the values of a key."""
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

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def files(self) -> dict[str, CacheFile]:
        """Return the first 16 digits of a data shard's sha256 -> its file of entries; wrong sizes do not count."""
        if not self.path.is_dir():
            return {}
        files: dict[str, CacheFile] = {}
        # Two runs may have computed the same entries with other rounding; every reader chooses the same file.
        for path in sorted(self.path.iterdir(), reverse=True):
            match = NAME.fullmatch(path.name)
            if match and path.stat().st_size == int(match[3]):
                files[match[1]] = CacheFile(path.name, match[2], int(match[3]))
        return files

    def missing(self, manifest: Manifest) -> list[int]:
        """Return the indices of a data set's shards that have no file of entries."""
        files = self.files()
        return [i for i, shard in enumerate(manifest.shards) if shard_digits(shard) not in files]


def shard_digits(shard: Shard) -> str:
    """Return the digits by which the cache knows a shard of the data."""
    return shard.sha256[:16]


def cache_root(recipe: Recipe, phase: str, data: str | Path) -> Path:
    """Return the folder of all caches of a data set: `train.latent_cache`, else DATA/latents."""
    root = recipe.for_phase(phase).latent_cache
    return Path(data) / LATENTS if root is None else Path(root)


def cache_folder(recipe: Recipe, phase: str, data: str | Path) -> CacheFolder:
    """Return the cache of a data set for a phase, which may not exist yet."""
    return CacheFolder(cache_root(recipe, phase, data) / latent_key(recipe, phase).digest)


def required_caches(recipe: Recipe, phase: str, data: Sequence[Path]) -> tuple[str, ...]:
    """Return the folder of the cache of each data set of a phase that trains on cached latents; () for other phases.

    Raise UserError, which names the command, if a shard has no entries.
    """
    if not reads_cache(recipe, phase):
        return ()
    key, folders = latent_key(recipe, phase), []
    for each in data:
        manifest = read_manifest(each)
        folder = CacheFolder(cache_root(recipe, phase, each) / key.digest)
        if missing := folder.missing(manifest):
            raise UserError(
                f"{phase}: train.latents=cached, and {len(missing)} of {len(manifest.shards)} shards of {each} have no "
                f"latents in {folder.path.parent}{_others(folder, key)}; run `xdub encode --recipe {recipe.name} "
                f"--data {each}` with the settings of this run, or --set train.latents=live"
            )
        folders.append(str(folder.path.resolve()))
    return tuple(folders)


def reads_cache(recipe: Recipe, phase: str) -> bool:
    """Return whether a phase trains on cached latents."""
    return recipe.for_phase(phase).latents == "cached"


def _others(folder: CacheFolder, key: LatentKey) -> str:
    """Return in words how the other caches of the same root differ, if the one that is needed does not exist."""
    if folder.path.is_dir() or not folder.path.parent.is_dir():
        return ""
    differences = []
    for path in sorted(folder.path.parent.glob(f"*/{KEY}")):
        try:
            differences.append(key.difference(json.loads(path.read_text("utf-8"))))
        except (OSError, ValueError, AttributeError):
            continue
    return f" (those there have {'; or '.join(dict.fromkeys(differences))})" if differences else ""
