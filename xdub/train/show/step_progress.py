"""Progress of a running phase, read from the committed record, so that it costs the workers nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from xdub.progress import Rate, Report, count, display
from xdub.train.state.committed_steps import last_record


@dataclass(frozen=True, kw_only=True)
class PhaseProgress:
    """State of a phase at one moment."""

    phase: str
    step: int
    """Number of committed steps."""
    steps: int
    """Number of steps that the phase trains for."""
    loss: float | None
    """Loss of the last committed step, or None before the first step."""
    steps_per_second: float | None
    """Speed over the last minute, without the time to start."""
    eta_seconds: float | None
    """Seconds until the last step at that speed."""

    @property
    def text(self) -> str:
        """Loss and speed, for a line."""
        parts = [] if self.loss is None else [f"loss {self.loss:.4f}"]
        if self.steps_per_second:
            parts.append(f"{self.steps_per_second:.2f} steps/s")
        return ", ".join(parts)

    def send(self, report: Report) -> None:
        """Report the steps, with loss and speed as the text."""
        report(self.step, self.steps, self.text)


Show = Callable[[PhaseProgress], None]
"""Function that is called when the state of a phase has changed."""


@contextmanager
def watch(
    phase: str, record: Path, steps: int, show: Show | None, poll_seconds: float = 0.5
) -> Generator[None]:
    """Call ``show`` (None: a progress bar on stderr) as the record grows, from a thread, and once more at the end."""
    if show is None:
        with _phase_display(phase) as own, _watching(phase, record, steps, own, poll_seconds):
            yield
    else:
        with _watching(phase, record, steps, show, poll_seconds):
            yield


@contextmanager
def _phase_display(phase: str) -> Generator[Show]:
    """Draw the phase on stderr; the last line holds the step at which training ended."""
    console, last = Console(stderr=True, highlight=False), None
    with display(console, phase) as report:

        def show(state: PhaseProgress) -> None:
            nonlocal last
            last = state
            state.send(report)

        yield show
    if last is not None:
        console.print(f"{phase}: {count(last.step, last.steps)} {last.text}".rstrip(), soft_wrap=True)


@contextmanager
def _watching(phase: str, record: Path, steps: int, show: Show, poll_seconds: float) -> Generator[None]:
    done = threading.Event()

    def run() -> None:
        rate, shown = Rate(), -1
        while True:
            last = done.wait(poll_seconds)
            entry = last_record(record)
            step = entry["step"] if entry else 0
            if step != shown:
                # The first step in the record may come from an earlier attempt, so the speed ignores its time.
                if shown >= 0:
                    rate.add(step)
                state = PhaseProgress(
                    phase=phase,
                    step=step,
                    steps=steps,
                    loss=float.fromhex(entry["loss"]) if entry else None,
                    steps_per_second=rate.per_second,
                    eta_seconds=rate.seconds_left(step, steps),
                )
                show(state)
                shown = step
            if last:
                return

    thread = threading.Thread(target=run, name="train-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
