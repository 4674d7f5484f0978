"""Processes that render, one GL context and one thread each."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS")
"""The last one is llvmpipe's, which would otherwise take every core in every process."""


@contextmanager
def renderers(workers: int) -> Generator[ProcessPoolExecutor]:
    """So many processes. They end with the block, whatever is left to do, and with this process, however it ends."""
    context = multiprocessing.get_context("spawn")  # a GL context does not survive a fork
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    for name in THREADS:
        os.environ[name] = "1"
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes keep one another's pipe open: after a kill of their parent they would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
