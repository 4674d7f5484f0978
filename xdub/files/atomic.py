"""Atomic writes: a reader sees the old file or folder or the complete new one, never a part of either."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xdub.errors import UserError

REFUSALS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
"""Errors of file systems that lack an operation, such as CIFS, FUSE or some network mounts."""
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
"""Errors of a full disk or quota."""


def check_output(path: str | Path, *, streams: bool = False) -> Path:
    """Return the file that a write to ``path`` creates or replaces, with links followed, after a trial.

    Call it before work whose result is written to ``path``. The trial creates and removes an empty file.

    Args:
        streams: accept an existing pipe or device, such as /dev/stdout.

    Raises:
        UserError: the folder does not exist or cannot be written, the name is too long or impossible on this file
            system, or ``path`` is a folder, a device or a loop of links.
    """
    path = Path(path)
    target = _target(path, streams=streams)
    try:
        if not target.exists():
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            target.unlink()
        elif target.is_file():
            _new_file(target, target.suffix).unlink()
    except OSError as error:
        raise _unwritable(error, path) from error
    return target


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``: renamed to ``path`` when the block ends, removed when the block fails.

    A link is followed: its target is replaced. Several processes may write the same ``path``; the last one wins.

    Raises:
        UserError: ``path`` cannot be written, see `check_output`; the disk is full; or the rename failed, in which case
            the temporary file remains and the message names it.
    """
    path = Path(path)
    target = _target(path)
    try:
        temporary = _new_file(target, path.suffix)
    except OSError as error:
        raise _unwritable(error, path) from error
    finished = False
    try:
        yield temporary
        finished = True
        _replace(temporary, target)
    except OSError as error:
        raise _explained(error, path) from error
    finally:
        if not finished:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a small text file; the new content survives a power cut once the function returns.

    A file has one writer: every write uses the same temporary name, so a killed write leaves no file behind that the
    next write does not overwrite. A link is followed: its target is replaced.

    Raises:
        UserError: the disk is full, or the rename failed.
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            sync(file.fileno())
    except OSError as error:
        raise _explained(error, path) from error
    _replace(temporary, target)


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
    finished = False
    try:
        yield temporary
        finished = True
        replace_folder(temporary, path)
    except OSError as error:
        raise _explained(error, path) from error
    finally:
        if not finished:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(source: Path, target: Path) -> Path:
    """Rename the complete folder ``source`` to ``target``, remove the old ``target``, and return ``target``.

    A kill in between leaves ``target`` absent, never mixed. If the rename fails, ``source`` remains and the message of
    the UserError names it.
    """
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        _replace(target, old)
    _replace(source, target)
    with suppress(OSError):  # the renames are done
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    shutil.rmtree(old, ignore_errors=True)
    return target


def sync(handle: int) -> None:
    """Wait until the bytes of an open file survive a power cut, if the file system supports that."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise


def _target(path: Path, *, streams: bool = False) -> Path:
    """Return the file that a write to ``path`` creates or replaces; raise UserError if the path cannot be a file."""
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        if target.is_symlink():
            raise UserError(f"{path}: a loop of links; give a file name")
        if target.is_dir():
            raise UserError(f"{path}: is a directory; give a file name")
        if target.exists() and not target.is_file() and not streams:
            raise UserError(f"{path}: is a device or pipe; give a file name")
        if not target.parent.is_dir():
            raise UserError(f"{path}: its folder {target.parent} does not exist; create it first")
    except OSError as error:
        raise _unwritable(error, path) from error
    return target


def _new_file(target: Path, suffix: str) -> Path:
    """Create an empty file with a short new name beside ``target``; its permissions are those of `open`."""
    suffix = suffix if len(os.fsencode(suffix)) <= 16 else ""
    while True:
        path = target.with_name(f".{target.stem[:16]}.{secrets.token_hex(4)}{suffix}")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return path


def _replace(source: Path, target: Path) -> None:
    """Rename a finished file or folder; if this fails, keep it and raise a UserError that names it."""
    try:
        os.replace(source, target)
    except OSError as error:
        reason = f"cannot be renamed to {target.name} ({error.strerror})"
        raise UserError(f"{source}: is complete, but {reason}; rename it yourself") from error


def _unwritable(error: OSError, path: Path) -> Exception:
    """Return a UserError that explains why a file cannot be created."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return UserError(f"{path}: no permission to write in {path.parent}; choose another folder")
    if error.errno == errno.EROFS:
        return UserError(f"{path}: {path.parent} is on a read-only file system; choose another folder")
    if error.errno in DISK_FULL:
        return _explained(error, path)
    return UserError(f"{path}: cannot be created ({error.strerror}); choose another name or folder")


def _explained(error: OSError, path: Path) -> Exception:
    """Return a UserError for a full disk, else the error itself."""
    if error.errno in DISK_FULL:
        return UserError(f"{path}: the disk is full; free some space in {path.parent} and run again")
    return error
