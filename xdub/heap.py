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
    """Skip the full collection at the exit of this process, which takes a second.

    Standard streams and handlers of logging are flushed as usual. A file in a variable of a module is not, so its owner
    closes it. Call this function before others are registered for the exit, so that it runs after them.
    """
    atexit.register(gc.freeze)
