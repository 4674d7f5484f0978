"""What a run shows while it trains: read from the committed record, so it costs the workers nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xdub.train.state.records import last_record


@dataclass(frozen=True, kw_only=True)
class PhaseProgress:
    """One look at a running phase."""

    phase: str
    step: int
    steps: int
    loss: float | None
    steps_per_second: float | None
    eta_seconds: float | None


Show = Callable[[PhaseProgress], None]
RATE_SECONDS = 60.0
"""Speed and remaining time are those of the last minute: starting up counts for neither."""


@contextmanager
def watch(
    phase: str, record: Path, steps: int, show: Show | None, poll_seconds: float = 0.5
) -> Generator[None]:
    """Call ``show`` (a progress bar if None) as the record grows, from a thread, and once more at the end."""
    bar = None
    if show is None:
        bar = _Bar(phase, steps)
        show = bar
    done = threading.Event()

    def run() -> None:
        recent: deque[tuple[int, float]] = deque()
        seen = -1
        while True:
            last = done.wait(poll_seconds)
            entry = last_record(record)
            step = entry["step"] if entry else 0
            if step != seen:
                now = time.monotonic()
                if seen >= 0:  # what stood there before says nothing of when it was made
                    recent.append((step, now))
                while len(recent) > 2 and now - recent[0][1] > RATE_SECONDS:
                    recent.popleft()
                rate = _rate(recent)
                show(
                    PhaseProgress(
                        phase=phase,
                        step=step,
                        steps=steps,
                        loss=float.fromhex(entry["loss"]) if entry else None,
                        steps_per_second=rate,
                        eta_seconds=(steps - step) / rate if rate else None,
                    )
                )
                seen = step
            if last:
                return

    thread = threading.Thread(target=run, name="train-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if bar is not None:
            bar.close()


def _rate(recent: Sequence[tuple[int, float]]) -> float | None:
    """Steps a second between the first and the last (step, time)."""
    if len(recent) < 2:
        return None
    (a, before), (b, now) = recent[0], recent[-1]
    return (b - a) / (now - before) if b > a and now > before else None


class _Bar:
    """A rich bar on a terminal; a line now and then where there is none."""

    LINE_SECONDS = 20.0

    def __init__(self, phase: str, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = Console(stderr=True)
        self._bar = None
        self._printed = time.monotonic()
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task(phase, total=steps, note="starting")
            self._bar.start()

    def __call__(self, now: PhaseProgress) -> None:
        note = "" if now.loss is None else f"loss {now.loss:.4f}"
        if now.steps_per_second and now.eta_seconds is not None:
            minutes, seconds = divmod(int(now.eta_seconds), 60)
            note += f"  {now.steps_per_second:.2f} steps/s  {minutes}:{seconds:02d} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=now.step, note=note)
        elif now.step == now.steps or time.monotonic() - self._printed > self.LINE_SECONDS:
            self._printed = time.monotonic()
            self._console.print(f"{now.phase} {now.step}/{now.steps}  {note}", highlight=False)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
