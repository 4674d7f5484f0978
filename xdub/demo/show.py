"""What the person at the terminal sees: which stage, how long, what is next; at the end the figures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from xdub.demo.page import duration
from xdub.evaluate.targets import CEILINGS, ROWS, missed


class Show:
    """Prints the journey. On a terminal with a live bar, into a file or pipe as plain lines."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._bar: Progress | None = None
        self._task: Any = None
        self._last_line = 0.0
        self._plain_title = ""

    def say(self, text: str) -> None:
        # A line of a log is one line, however long.
        self.console.print(text, highlight=False, soft_wrap=not self.console.is_terminal)

    def already(self, number: int, total: int, title: str, seconds: float) -> None:
        self.say(f"[dim]{number:>2}/{total}  {title}: done before, in {duration(seconds)}[/dim]")

    @contextmanager
    def stage(self, number: int, total: int, title: str, expected: float | None, then: str) -> Iterator[None]:
        """A stage that is expected to take ``expected`` seconds; ``then`` names the next one."""
        hints = [f"about {duration(expected)}"] if expected else []
        hints += [f"then: {then}"] if then else []
        self.say(f"[bold]{number:>2}/{total}  {title}[/bold] [dim]{', '.join(hints)}[/dim]")
        start = time.monotonic()
        self._plain_title, self._last_line = title, start
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("      "), SpinnerColumn(), BarColumn(32), TextColumn("{task.description}"),
                TimeElapsedColumn(), console=self.console, transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("starting", total=None)
            self._bar.start()
        try:
            yield
        finally:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None
        self.say(f"       [green]done[/green] in {duration(time.monotonic() - start)}")

    def update(self, done: float, total: float | None = None, text: str = "") -> None:
        """Progress inside the running stage; cheap, call it as often as you like."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=text)
        elif time.monotonic() - self._last_line > 20:
            self._last_line = time.monotonic()
            self.say(f"       {done:g}{'' if total is None else f' of {total:g}'} {text}")

    def figures(self, summary: Mapping[str, Any]) -> None:
        """The table at the end."""
        start = "continued from the shipped weights" if summary["warm_start"] else "from random weights"
        table = Table(title=f"Held-out heads, seed {summary['seed']}, {start}", title_justify="left")
        table.add_column("")
        for name in ("generator", "editor"):
            table.add_column(name, justify="right")
        table.add_column("goal", style="dim")
        for row in ROWS:
            cells = []
            for model in ("generator", "editor"):
                value = summary[model][row.key]
                colour = "" if row.met is None else ("green" if row.met(value, model, summary) else "red")
                text = f"{value:.{row.digits}f}{row.unit}"
                cells.append(f"[{colour}]{text}[/{colour}]" if colour else text)
            table.add_row(row.key, *cells, row.goal)
        self.console.print(table)
        for name, (label, goal) in CEILINGS.items():
            colour = "green" if summary[name] >= goal else "red"
            value = f"[{colour}]{summary[name]:.3f}[/{colour}]"
            self.say(f"  ceiling [bold]{name}[/bold] {value}  {label} (goal ≥ {goal})")
        spent = sum(summary["seconds"].values())
        self.say(f"  {duration(spent)} in all, at most {summary['peak_gb']:.1f} GB of memory at once")
        for line in missed(summary):
            self.say(f"  [red]not met[/red]  {line}")
