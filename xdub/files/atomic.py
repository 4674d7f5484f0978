"""Files that exist whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xdub.errors import UserError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``: renamed to it when the block ends, removed when it fails.

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
        raise _told(error, path) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise _told(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def _told(error: OSError, path: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{path}: the disk is full; free some space in {path.parent} and run again")
    return error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
