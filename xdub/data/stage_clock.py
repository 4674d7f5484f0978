"""Seconds by stage of the work on a source, in the scores of its last ledger row.

``seconds.STAGE`` are seconds of the worker, and ``cores.STAGE`` the seconds that cores worked. Both differ where a
stage waits for a decoder, a GPU or other programs. ``footage`` is the length of the source in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from xdub.data.clip import Clip
from xdub.data.ledger_row import LedgerRow
from xdub.media.deadline import Deadline

Item = TypeVar("Item")
SECONDS, CORES, FOOTAGE = "seconds.", "cores.", "footage"
"""Beginnings and name of the scores."""
DECODE, ENCODE, OTHER = "decode", "encode", "other"
"""Stage of decoders, of the caller, which encodes a clip and writes shards, and of all other work."""


class StageClock:
    """Clock of the stages of one source after another; the time of an inner stage does not count for the outer."""

    def __init__(self) -> None:
        self.footage = 0.0
        """Length of the source in seconds."""
        self.deadline = Deadline()
        """Time limit of the source, which counts the work of its decoders."""
        self._stages: list[str] = []
        self._seconds: dict[str, float] = {}
        self._cores: dict[str, float] = {}
        self._since = (0.0, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the block for a stage."""
        self._switch()
        self._stages.append(stage)
        try:
            yield
        finally:
            self._switch()
            self._stages.pop()

    def timed(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, and count the time of each for a stage."""
        iterator = iter(items)
        try:
            while True:
                with self(stage):
                    try:
                        item = next(iterator)
                    except StopIteration:
                        return
                yield item
        finally:
            close: Callable[[], None] | None = getattr(iterator, "close", None)
            if close is not None:
                close()

    def record(self, items: Iterable[Clip | LedgerRow]) -> Iterator[Clip | LedgerRow]:
        """Yield the results of a source; the last row has the seconds of all stages."""
        self.footage, self.deadline, self._seconds, self._cores = 0.0, Deadline(), {}, {}
        held: Clip | LedgerRow | None = None
        for item in self.timed(OTHER, items):
            if held is not None:
                with self(ENCODE if isinstance(held, Clip) else OTHER):
                    yield held
            held = item
        if isinstance(held, LedgerRow):
            held = replace(held, scores=held.scores | self.scores())
        if held is not None:
            yield held

    def scores(self) -> dict[str, float]:
        """Return all seconds by the names of their scores."""
        seconds = {SECONDS + stage: value for stage, value in self._seconds.items()}
        cores = {CORES + stage: value for stage, value in self._cores.items()}
        cores[CORES + DECODE] = cores.get(CORES + DECODE, 0.0) + self.deadline.decoding
        return {FOOTAGE: self.footage} | seconds | cores

    def _switch(self) -> None:
        """Count the time since the last switch for the innermost stage."""
        now = time.monotonic(), time.process_time()
        if self._stages:
            stage = self._stages[-1]
            self._seconds[stage] = self._seconds.get(stage, 0.0) + now[0] - self._since[0]
            self._cores[stage] = self._cores.get(stage, 0.0) + now[1] - self._since[1]
        self._since = now
