"""How much memory the demo really takes: all of its processes together, sampled while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

GB = 1e9


class Meter(threading.Thread):
    """Samples the memory of this process and all below it until stopped; use as a context manager.

    ``peak_gb`` adds up proportional set sizes (a page shared by k processes counts once), which is what a
    machine must have; ``peak_rss_gb`` adds up resident sizes, in which Ray's workers count the same libraries
    again and again.
    """

    def __init__(self, interval: float = 1.0, peak_gb: float = 0.0, peak_rss_gb: float = 0.0) -> None:
        super().__init__(daemon=True, name="memory meter")
        self.on_peak: Callable[[], None] | None = None
        self.interval, self.peak_gb, self.peak_rss_gb = interval, peak_gb, peak_rss_gb
        self._stop_asked = threading.Event()

    def __enter__(self) -> Meter:
        self.sample()
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop_asked.set()
        self.join()

    def run(self) -> None:
        cost = 0.0
        # Reading page tables takes time in proportion to memory: at most a fiftieth of a core goes there.
        while not self._stop_asked.wait(max(self.interval, 50 * cost)):
            start = time.thread_time()
            self.sample()
            cost = time.thread_time() - start

    def sample(self) -> None:
        """Take one reading now."""
        import psutil

        me = psutil.Process()
        pss = rss = 0
        for process in [me, *me.children(recursive=True)]:
            try:
                info = process.memory_full_info()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue  # ended between the listing and the reading
            except psutil.AccessDenied:
                info = process.memory_info()
            pss += getattr(info, "pss", info.rss)
            rss += info.rss
        higher = pss / GB > 1.02 * self.peak_gb  # worth telling
        self.peak_gb = max(self.peak_gb, pss / GB)
        self.peak_rss_gb = max(self.peak_rss_gb, rss / GB)
        if higher and self.on_peak is not None:
            self.on_peak()
