"""Lock for files and folders; the kernel releases it when the process that holds it dies."""

from __future__ import annotations

import errno
import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from xdub.errors import UserError


@contextmanager
def exclusive(path: Path, *, busy: str | None = None) -> Iterator[IO[str]]:
    """Hold the lock on a file, created if missing, and yield the file open for reading and appending.

    With ``busy``, raise UserError(busy) at once if another process holds the lock. Without ``busy``, wait. On a file
    system that cannot lock, continue without a lock; with ``busy``, print a note.

    Raises:
        UserError: another process holds the lock.
        OSError: the file cannot be opened.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if busy is not None and error.errno in (errno.EAGAIN, errno.EACCES):
                raise UserError(busy) from None
            if busy is not None:
                note = "this file system has no locks, so do not start a second process that writes there"
                print(f"{path.parent}: {note}", file=sys.stderr)
        yield file
