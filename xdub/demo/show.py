"""The demo on the terminal: the running stage, its expected time and the next one; at the end the figures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from xdub.evaluate.metric import Metric
from xdub.evaluate.targets import CEILINGS, GOALS, MODELS, measured, missed
from xdub.progress import Report, display, duration

INDENT = "       "
"""Space before the lines of a stage, below its number."""


class Show:
    """Prints the stages of a demo and its figures to stdout."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()

    def line(self, text: str) -> None:
        """Print one line, which is wrapped on a terminal only."""
        self.console.print(text, highlight=False, emoji=False, soft_wrap=not self.console.is_terminal)

    def finished(self, number: int, total: int, title: str, seconds: float) -> None:
        """Print that an earlier attempt finished a stage."""
        self.line(f"[dim]{number:>2}/{total}  {title}: done before, in {duration(seconds)}[/dim]")

    @contextmanager
    def stage(
        self, number: int, total: int, title: str, expected: float | None, following: str
    ) -> Iterator[Report]:
        """Show a running stage, and yield the function that receives its progress.

        ``expected`` is the usual time of the stage in seconds, and ``following`` is the title of the next stage.
        """
        hints = [f"about {duration(expected)}"] if expected else []
        hints += [f"then: {following}"] if following else []
        self.line(f"[bold]{number:>2}/{total}  {title}[/bold] [dim]{', '.join(hints)}[/dim]")
        start = time.monotonic()
        with display(self.console, "", INDENT) as report:
            yield report
        self.line(f"{INDENT}[green]done[/green] in {duration(time.monotonic() - start)}")

    def figures(self, summary: Mapping[str, Any]) -> None:
        """Print the table of metrics, the ceilings, time and memory, and the goals that were missed."""
        start = "continued from the shipped weights" if summary["warm_start"] else "from random weights"
        table = Table(title=f"Held-out heads, seed {summary['seed']}, {start}", title_justify="left")
        table.add_column("")
        for name in MODELS:
            table.add_column(name, justify="right")
        table.add_column("goal", style="dim")
        for metric in measured(summary):
            goal = GOALS.get(metric.name)
            table.add_row(metric.name, *_cells(metric, summary), goal.text if goal else "")
        self.console.print(table)
        for name, (label, goal) in CEILINGS.items():
            colour = "green" if summary[name] >= goal else "red"
            value = f"[{colour}]{summary[name]:.3f}[/{colour}]"
            self.line(f"  ceiling [bold]{name}[/bold] {value}  {label} (goal ≥ {goal})")
        spent = sum(summary["seconds"].values())
        self.line(f"  {duration(spent)} in all, at most {summary['peak_gb']:.1f} GB of memory at once")
        for line in missed(summary):
            self.line(f"  [red]not met[/red]  {line}")


def _cells(metric: Metric[Any], summary: Mapping[str, Any]) -> list[str]:
    """Format the value of each model, coloured by its goal."""
    goal = GOALS.get(metric.name)
    cells = []
    for model in MODELS:
        value = summary[model][metric.name]
        text = metric.text(value)
        if goal is not None:
            colour = "green" if goal.met(value, model, summary) else "red"
            text = f"[{colour}]{text}[/{colour}]"
        cells.append(text)
    return cells
