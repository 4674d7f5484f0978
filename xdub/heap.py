"""Scans of Python's garbage collector over objects that stay until the process ends."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Exempt the objects that exist now from garbage collection inside this context.

    The modules of torch and its companions are half a million objects, so each full collection takes a second without
    this context. Cycles that arise inside it are collected as usual.
    """
    if gc.get_freeze_count():
        # An outer context, or the owner of this process, has frozen the heap and decides when that ends.
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def skip_last_collection() -> None:
    """Spare this process the full collection at its exit, which takes a second. Buffers and files are still closed.

    Call it before other functions are registered for the exit, so that it runs after them.
    """
    atexit.register(gc.freeze)
