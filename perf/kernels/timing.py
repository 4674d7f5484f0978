"""Times on the device: competitors take turns in one process, so that clocks and other load affect all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

HEAD_START = 2_000_000
"""Clock cycles that the device waits before a timed call, about a millisecond."""


@lru_cache(maxsize=1)
def recording_stream() -> torch.cuda.Stream:
    """Return the stream on which small operations run and are recorded.

    Forward and backward share it, because autograd runs backward on the stream of its forward.
    """
    return torch.cuda.Stream()


@dataclass(frozen=True)
class Times:
    """Milliseconds of a call."""

    p20: float
    """20th percentile."""
    p50: float
    """50th percentile."""
    p80: float
    """80th percentile."""
    noise: float
    """Relative difference of the medians of the first and the second half of the samples."""
    samples: int
    """Number of timed calls."""


def interleaved(
    calls: Mapping[str, Callable[[int], object]], *, seconds: float, least: int = 30, warmup: int = 3
) -> dict[str, Times]:
    """Time every call in turn until each has ``least`` samples, or ``seconds`` are over for all of them together.

    A call receives the number of the round, to choose among its input sets. Every call has at least two samples.
    """
    for call in calls.values():
        for round_index in range(warmup):
            call(round_index)
    torch.cuda.synchronize()
    events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in calls}
    started, round_index = time.monotonic(), 0
    while round_index < 2 or (round_index < least and time.monotonic() - started < seconds):
        order = list(calls)
        turn = round_index % len(order)
        for name in order[turn:] + order[:turn]:
            call = calls[name]
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            # The device waits while the host launches, so that the time is that of the kernels and not of Python.
            torch.cuda._sleep(HEAD_START)
            begin.record()
            call(round_index)
            end.record()
            events[name].append((begin, end))
        torch.cuda.synchronize()
        round_index += 1
    return {name: summary([b.elapsed_time(e) for b, e in pairs]) for name, pairs in events.items()}


def graphed(call: Callable[[int], object], sets: int) -> Callable[[int], object]:
    """Record ``call`` once for every input set as a CUDA graph, so that launches cost the host nothing.

    One replay runs ``sets`` calls, so its time must be divided by ``sets``.
    """
    side = recording_stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for index in range(sets):
            call(index)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        for index in range(sets):
            call(index)
    return lambda _: graph.replay()


def peak_bytes(call: Callable[[int], object]) -> int:
    """Return the peak memory of one call, beyond the memory allocated before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call(0)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


class Marks:
    """Points in time of one run, on the device's clock (CUDA events), or the host's for a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[Any] = []
        if self._cuda:
            torch.cuda.synchronize()

    def mark(self) -> None:
        """Add the current point, in the order of the device's work."""
        if not self._cuda:
            self._marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def spans(self) -> list[float]:
        """Wait for the device; return the milliseconds from mark to mark."""
        if self._cuda:
            torch.cuda.synchronize()
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return [a.elapsed_time(b) if self._cuda else 1e3 * (b - a) for a, b in pairs]


def summary(samples: Sequence[float]) -> Times:
    """Return percentiles and noise of milliseconds in the order of their measurement."""
    values = np.array(samples)
    half = len(values) // 2
    first, second = np.median(values[:half] if half else values), np.median(values[half:])
    p20, p50, p80 = np.percentile(values, [20, 50, 80])
    return Times(float(p20), float(p50), float(p80), float(abs(first - second) / p50), len(values))
