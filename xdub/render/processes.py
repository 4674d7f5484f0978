"""Worker processes for rendering, with one GL context and one thread each."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait

from xdub.ray_session import environment

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS")
"""Variables that limit threads. The last is llvmpipe's, which would otherwise use every core in every process."""


@contextmanager
def renderers(workers: int) -> Generator[ProcessPoolExecutor]:
    """Start a pool of `workers` processes.

    The processes end with the block, which cancels tasks that have not started, and with this process, even if this
    process is killed.
    """
    # A GL context does not survive a fork.
    context = multiprocessing.get_context("spawn")
    # Python imports its own modules from the current folder first in a process that it starts with `-c`.
    with (
        environment({"PYTHONSAFEPATH": "1"}),
        ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool,
    ):
        try:
            yield pool
        except (KeyboardInterrupt, SystemExit):
            # A request to stop does not wait for the clips in work.
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def limit_threads() -> None:
    """Limit this process to one thread, before it opens a GL context."""
    for name in THREADS:
        os.environ[name] = "1"


def _begin() -> None:
    limit_threads()
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    """End this process once its parent has ended.

    The processes of a pool keep one another's pipes open, so they would wait for ever after a kill of their parent.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
