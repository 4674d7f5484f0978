"""Locks of a data set on a disk. The kernel releases a lock when its process dies; an object store has no locks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xdub.files.lock import exclusive
from xdub.files.storage import Location

WRITER, SPEAKERS = ".lock", ".speakers.lock"
"""Lock files: of the writer of shards, manifest and ledger, and of the folders ``speakers`` and ``duplicates``."""


@contextmanager
def locked(folder: Location, name: str, *, busy: str | None = None) -> Iterator[None]:
    """Hold a lock. With ``busy``, raise UserError(busy) if another process holds the lock; without ``busy``, wait."""
    if folder.local is None:
        yield
        return
    with exclusive(folder.local / name, busy=busy):
        yield
