"""Atomic writes: a reader sees the old file or folder or the complete new one, never a part of either."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xdub.errors import UserError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``: renamed to ``path`` when the block ends, removed when the block fails.

    Several processes may write the same ``path``; the last one wins.

    Raises:
        UserError: the folder does not exist or is not writable, ``path`` is a folder, or the disk is full.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a directory; give a file name")
    if not path.parent.is_dir():
        raise UserError(f"{path}: its folder {path.parent} does not exist; create it first")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    except PermissionError as error:
        raise UserError(f"{path}: no permission to write in {path.parent}") from error
    except OSError as error:
        raise _explained(error, path) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise _explained(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a small text file; the new content survives a power cut once the function returns.

    A file has one writer: every write uses the same temporary name, so a killed write leaves no file behind that the
    next write does not overwrite.

    Raises:
        UserError: the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _explained(error, path) from error


def write_json(path: Path, value: Any) -> None:
    """Replace a small JSON file, see `write_text`."""
    write_text(path, json.dumps(value, indent=1))


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that replaces ``path`` when the block ends; removed when the block fails.

    A folder has one writer.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        replace_folder(temporary, path)
    except OSError as error:
        raise _explained(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(source: Path, target: Path) -> Path:
    """Rename the complete folder ``source`` to ``target``, remove the old ``target``, and return ``target``.

    A kill in between leaves ``target`` absent, never mixed.
    """
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        os.replace(target, old)
    os.replace(source, target)
    _sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)
    return target


def _sync_folder(folder: Path) -> None:
    """Wait until the renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explained(error: OSError, path: Path) -> Exception:
    """Return a UserError for a full disk, else the error itself."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{path}: the disk is full; free some space in {path.parent} and run again")
    return error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
