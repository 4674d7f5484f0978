"""A progress bar for one long job: live on a terminal, a line now and then in a file or pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console, title)
        return
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
            console.print(f"{title}: {done:g}{of} {text}".rstrip(), highlight=False)

    return report
