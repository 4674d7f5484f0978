"""One progress display for every long job: a bar on a terminal, a line every 20 s in a file or pipe."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

LINE_SECONDS = 20.0
"""Least time between two lines where there is no terminal."""
RATE_SECONDS = 60.0
"""Speed and remaining time are measured over this last part of a job, so that a slow start does not count."""


class Report(Protocol):
    """Function that a job calls to report its progress; a call is cheap."""

    def __call__(self, done: float, total: float | None = None, text: str = "") -> None:
        """Report that ``done`` of ``total`` (None: unknown) is finished; ``text`` is shown beside both."""


class Titled(Protocol):
    """A stage of a job with several stages."""

    @property
    def title(self) -> str:
        """Name of the stage on the display."""


class Rate:
    """Speed of a job over its last minute, from the times at which its count changed."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque()

    def add(self, done: float) -> None:
        """Record that the count is ``done`` now."""
        now = time.monotonic()
        if not self._recent or self._recent[-1][0] != done:
            self._recent.append((done, now))
        while len(self._recent) > 2 and now - self._recent[0][1] > RATE_SECONDS:
            self._recent.popleft()

    @property
    def per_second(self) -> float | None:
        """Units a second; None before the second change of the count."""
        if len(self._recent) < 2:
            return None
        (first, before), (last, now) = self._recent[0], self._recent[-1]
        return (last - first) / (now - before) if last > first and now > before else None

    def seconds_left(self, done: float, total: float | None) -> float | None:
        """Seconds until ``total`` at the present speed; None where the speed or the total is unknown."""
        rate = self.per_second
        return None if rate is None or total is None else max(0.0, total - done) / rate


def ignore(done: float, total: float | None = None, text: str = "") -> None:
    """Show nothing: the `Report` of a caller that wants no display."""


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Show `title` and the job's progress on stderr (stdout is for results), then a line with the duration.

    The last line is not printed if the job raises.
    """
    # A title or a text may hold a file name, which may look like markup or like an emoji's name.
    console, begin = Console(stderr=True, highlight=False, markup=False, emoji=False), time.monotonic()
    with display(console, title) as report:
        yield report
    console.print(f"{title}: done in {time.monotonic() - begin:.0f} s", soft_wrap=True)


@contextmanager
def stage_progress() -> Iterator[Callable[[Titled, int, int], Report]]:
    """Yield a function to call with (stage, number, total) when a stage begins; the stage before it ends then."""
    with ExitStack() as current:

        def on_stage(stage: Titled, number: int, total: int) -> Report:
            current.close()
            return current.enter_context(progress(f"{number}/{total} {stage.title}"))

        yield on_stage


@contextmanager
def display(console: Console, title: str, indent: str = "") -> Iterator[Report]:
    """Yield a `Report` that draws on the console: a live bar that vanishes at the end, or a line every 20 s.

    The bar needs a terminal that can move its cursor; TERM=dumb gets the lines.
    """
    if console.is_terminal and not console.is_dumb_terminal:
        with _bar(console, title, indent) as report:
            yield report
    else:
        yield _lines(console, title, indent)


def leave_closed_terminal() -> None:
    """Discard further output to a terminal that has been closed, because writing to it would fail."""
    with open(os.devnull, "w") as null:
        for handle in (1, 2):
            try:
                os.ttyname(handle)
            except OSError as error:
                if error.errno != errno.ENOTTY:  # a pipe or file
                    os.dup2(null.fileno(), handle)


@contextmanager
def _bar(console: Console, title: str, indent: str) -> Iterator[Report]:
    columns = (
        TextColumn(indent),
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    rate = Rate()
    with Progress(*(columns if indent else columns[1:]), console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, note="")

        def report(done: float, total: float | None = None, text: str = "") -> None:
            rate.add(done)
            note = ", ".join(part for part in (text, _left(rate, done, total)) if part)
            bar.update(task, completed=done, total=total, note=note)

        yield report


def _lines(console: Console, title: str, indent: str) -> Report:
    rate, last = Rate(), time.monotonic()
    head = f"{indent}{title}: " if title else indent

    def report(done: float, total: float | None = None, text: str = "") -> None:
        nonlocal last
        rate.add(done)
        if time.monotonic() - last > LINE_SECONDS:
            last = time.monotonic()
            parts = (f"{count(done, total)} {text}".rstrip(), _left(rate, done, total))
            console.print(head + ", ".join(part for part in parts if part), soft_wrap=True, highlight=False)

    return report


def count(done: float, total: float | None) -> str:
    """Format "3 of 10", or "3" without a total."""
    numbers = [done] if total is None else [done, total]
    return " of ".join(f"{n:.0f}" if float(n).is_integer() else f"{n:g}" for n in numbers)


def _left(rate: Rate, done: float, total: float | None) -> str:
    seconds = rate.seconds_left(done, total)
    return f"{duration(seconds)} left" if seconds else ""


def duration(seconds: float) -> str:
    """Return a time for reading: 1.2 s, 45 s, 3 min 20 s or 1 h 04 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole >= 10 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
