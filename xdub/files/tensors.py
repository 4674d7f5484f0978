"""Safetensors files, with an error of one line for a file that cannot be read or written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from xdub.errors import UserError


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file. Raise UserError if the file is truncated or of another kind."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}); copy or export it again"
        ) from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the texts in the header of a safetensors file; a file of another kind has none."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError:
        return {}


def signature(shapes: Mapping[str, Sequence[int]]) -> str:
    """Return the md5 of a network's sorted names and shapes, which identifies a release without its values."""
    texts = sorted(
        text for name, shape in shapes.items() for text in (f"{name}:{'_'.join(map(str, shape))}", name)
    )
    return hashlib.md5(",".join(texts).encode(), usedforsecurity=False).hexdigest()


def write_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file; the same content gives the same bytes.

    Raise OSError if the system refuses the write, for example on a full disk.
    """
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
        apply_umask(Path(path))
        if metadata is not None and len(metadata) > 1:
            _sort_metadata(Path(path))
    except SafetensorError as error:
        # The library reports errors of the system in its own type, as text.
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def apply_umask(path: Path) -> None:
    """Give a file the permissions of a new file, because safetensors writes files that only their owner can read."""
    # A file that the system creates has them. Reading the umask would set it for other threads, too.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mode-") as folder:
        new = Path(folder) / "new"
        new.touch()
        path.chmod(new.stat().st_mode)


def _sort_metadata(path: Path) -> None:
    """Sort the texts in a file's header, which the library writes in a random order."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        # A header ends with spaces, and the tensors begin behind it.
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))
