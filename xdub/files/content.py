"""Digests of files, and of the weights of a network, which is known by its content, so that its folder may move."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from xdub.errors import UserError

CONFIGS = ("config.json", "preprocessor_config.json")
"""Files of a model folder that decide what its network computes, beside the weights."""
WEIGHTS = ("*.safetensors", "*.bin")
"""Weights of a model folder; a pattern counts only if no file matches an earlier one."""


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_sha256(path: Path) -> str:
    """Return the sha256 of a file; a process reads an unchanged file once."""
    state = path.stat()
    return _sha256_of(path.absolute(), state.st_size, state.st_mtime_ns)


def forget_digests() -> None:
    """Let `cached_sha256` read every file again."""
    _sha256_of.cache_clear()


def content_digest(path: str | Path) -> str:
    """Return the sha256 of a file, or a digest of the weights and configuration of a model folder of transformers or
    diffusers. Raise UserError if the folder holds neither or a file cannot be read.
    """
    path = Path(path)
    try:
        if not path.is_dir():
            return cached_sha256(path)
        weights: list[Path] = next(
            (files for pattern in WEIGHTS if (files := sorted(path.glob(pattern)))), []
        )
        files = [*weights, *(path / name for name in CONFIGS if (path / name).is_file())]
        if not files:
            raise UserError(f"{path}: the folder holds no model: neither config.json nor weights")
        lines = "".join(f"{file.name} {cached_sha256(file)}\n" for file in files)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return hashlib.sha256(lines.encode()).hexdigest()


@lru_cache(maxsize=256)
def _sha256_of(path: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(path)
