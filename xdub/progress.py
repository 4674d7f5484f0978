"""A progress bar for one long job: live on a terminal, a line now and then in a file or pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

Report = Callable[..., None]
"""`report(done, total, text="")`"""

LINE_EVERY = 20.0


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Shows `title`; the yielded function moves the bar and is cheap to call. Goes to stderr: stdout is for results."""
    console, begin = Console(stderr=True, highlight=False), time.monotonic()
    if console.is_terminal:
        with _bar(console, title) as report:
            yield report
    else:
        yield _lines(console, title)
    console.print(f"{title}: done in {time.monotonic() - begin:.0f} s")


@contextmanager
def stage_progress() -> Iterator[Callable[[Any, int, int], Report]]:
    """For a job of several stages: call it with (stage, number, total) when one begins; the one before ends."""
    with ExitStack() as current:

        def on_stage(stage: Any, number: int, total: int) -> Report:
            current.close()
            return current.enter_context(progress(f"{number}/{total} {stage.title}"))

        yield on_stage


@contextmanager
def _bar(console: Console, title: str) -> Iterator[Report]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def report(done: float, total: float | None = None, text: str = "") -> None:
            bar.update(task, completed=done, total=total, description=f"{title} {text}".rstrip())

        yield report


def _lines(console: Console, title: str) -> Report:
    last = time.monotonic()

    def report(done: float, total: float | None = None, text: str = "") -> None:
        nonlocal last
        if time.monotonic() - last > LINE_EVERY:
            last = time.monotonic()
            of = "" if total is None else f" of {total:g}"
            console.print(f"{title}: {done:g}{of} {text}".rstrip(), soft_wrap=True)

    return report
