"""Memory use of the demo, sampled over all of its processes while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

GB = 1e9
"""Bytes of a gigabyte."""


class Meter(threading.Thread):
    """Thread that samples the memory of this process and its descendants; use it as a context manager.

    ``peak_gb`` is the largest sum of proportional set sizes (a page shared by k processes counts once): the memory that
    a machine must have. ``peak_rss_gb`` is the largest sum of resident sizes, in which the libraries of Ray's workers
    count once per worker.
    """

    def __init__(self, interval: float = 1.0, peak_gb: float = 0.0, peak_rss_gb: float = 0.0) -> None:
        super().__init__(daemon=True, name="memory meter")
        self.on_peak: Callable[[], None] | None = None
        """Function that is called after a sample that raised the peak by more than 2 %."""
        self.interval, self.peak_gb, self.peak_rss_gb = interval, peak_gb, peak_rss_gb
        self._stop_event = threading.Event()

    def __enter__(self) -> Meter:
        self.sample()
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop_event.set()
        self.join()

    def run(self) -> None:
        """Sample until the context ends."""
        cost = 0.0
        # Reading page tables takes time in proportion to memory, so sampling is limited to a fiftieth of a core.
        while not self._stop_event.wait(max(self.interval, 50 * cost)):
            start = time.thread_time()
            self.sample()
            cost = time.thread_time() - start

    def sample(self) -> None:
        """Take one sample of the memory."""
        import psutil

        me = psutil.Process()
        pss = rss = 0
        for process in [me, *me.children(recursive=True)]:
            try:
                info = process.memory_full_info()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                # The process ended between the listing and the reading.
                continue
            except psutil.AccessDenied:
                info = process.memory_info()
            pss += getattr(info, "pss", info.rss)
            rss += info.rss
        is_higher = pss / GB > 1.02 * self.peak_gb
        self.peak_gb = max(self.peak_gb, pss / GB)
        self.peak_rss_gb = max(self.peak_rss_gb, rss / GB)
        if is_higher and self.on_peak is not None:
            self.on_peak()
