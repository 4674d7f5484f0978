"""Digests that know the weights of a network by content, so that files and folders may move."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from xdub.errors import UserError

CONFIGS = ("config.json", "preprocessor_config.json")
"""Files of a model folder that decide what its network computes, beside the weights."""
WEIGHTS = ("*.safetensors", "*.bin")
"""Weights of a model folder; a pattern counts only if no file matches an earlier one."""


def content_digest(path: str | Path) -> str:
    """Return the sha256 of a file, or a digest of the weights and configuration of a model folder of transformers or
    diffusers. Raise UserError if the folder holds neither or a file cannot be read.
    """
    path = Path(path)
    try:
        if not path.is_dir():
            return _sha256(path)
        weights: list[Path] = next(
            (files for pattern in WEIGHTS if (files := sorted(path.glob(pattern)))), []
        )
        files = [*weights, *(path / name for name in CONFIGS if (path / name).is_file())]
        if not files:
            raise UserError(f"{path}: the folder holds no model: neither config.json nor weights")
        lines = "".join(f"{file.name} {_sha256(file)}\n" for file in files)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(path: Path) -> str:
    """Return the sha256 of a file; a process reads an unchanged file once."""
    state = path.stat()
    return _cached_sha256(str(path.absolute()), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _cached_sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
