"""Compare training runs (`xdub runs compare`): settings that differ, last values, and all loss curves in one chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from xdub.errors import UserError
from xdub.files.atomic import atomic_path, check_output
from xdub.report.charts import (
    Series,
    Values,
    chart_style,
    draw_lines,
    legend,
    line_chart,
    new_figure,
    save_png,
    smooth,
)
from xdub.report.page import page, section, table
from xdub.report.palette import SERIES
from xdub.tracking.read import BAND, TrackedRun, read_runs, ui_command

PLOT_COLUMNS = 3
"""Largest number of charts in a row of the PNG."""

Line = tuple[Values, Values]
"""x and y [N] of one run."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One quantity of all runs of a group."""

    y_label: str
    x_label: str
    lines: Sequence[Line | None]
    """Line of each run; None where a run lacks the quantity."""
    noisy: bool = False
    """Draw the running mean, with the values themselves faint behind it."""

    def series(self, names: Sequence[str]) -> list[Series]:
        """Return the lines to draw, for runs with these names in this order."""
        series: list[Series] = []
        for number, (name, line) in enumerate(zip(names, self.lines, strict=True)):
            if line is None:
                continue
            colour = SERIES[number % len(SERIES)]
            if self.noisy:
                series.append(Series(name="", x=line[0], y=line[1], colour=colour, faint=True))
                series.append(Series(name=name, x=line[0], y=smooth(line[1]), colour=colour))
            else:
                series.append(Series(name=name, x=line[0], y=line[1], colour=colour, points=True))
        return series


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that are compared with one another: the same phase of several folders, or the phases of one folder."""

    title: str
    runs: Sequence[TrackedRun]

    @property
    def names(self) -> list[str]:
        """Names of the runs without the folders that all of them share."""
        return short_names([run.name for run in self.runs])

    @property
    def params(self) -> dict[str, list[str]]:
        """Settings that differ: name -> value of each run, "-" where a run has none."""
        return _rows([run.settings for run in self.runs], only_different=True)

    @property
    def metrics(self) -> dict[str, list[str]]:
        """Last values: name -> value of each run. Losses by noise band are in the charts only."""
        columns = [
            {name: f"{value:.4g}" for name, value in run.metrics.items() if BAND not in name}
            for run in self.runs
        ]
        return _rows(columns, only_different=False)

    @property
    def charts(self) -> list[Chart]:
        """Every loss over the steps, then every loss over the noise level."""
        losses = dict.fromkeys(loss for run in self.runs for loss in run.curves)
        banded = dict.fromkeys(loss for run in self.runs for loss in run.bands)
        return [
            Chart(y_label=loss, x_label="step", lines=[run.curves.get(loss) for run in self.runs], noisy=True)
            for loss in losses
        ] + [
            Chart(
                y_label=loss,
                x_label="noise level t (last quarter of the run)",
                lines=[run.bands.get(loss) for run in self.runs],
            )
            for loss in banded
        ]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Result of `compare_runs`: groups of runs, and the files that were written."""

    groups: Sequence[Group]
    ui: str
    """Shell lines that open MLflow's own comparison."""
    html: Path | None = None
    """Page with tables and curves; None if none was written."""
    png: Path | None = None
    """Picture of the curves beside the page."""


def compare_runs(
    names: Sequence[str | Path], out: str | Path | None = None, *, uri: str | None = None
) -> Comparison:
    """Compare tracked runs: folders, FOLDER/PHASE, or MLflow ids with ``uri``.

    Several folders are compared phase by phase; the phases of a single folder are compared with one another. ``out`` is
    an HTML file to write; a PNG of the loss curves is written beside it.

    Raises:
        UserError: a run does not exist, or there are fewer than two.
    """
    if out is not None:
        check_output(out)
        check_output(Path(out).with_suffix(".png"))
    runs = read_runs([str(name) for name in names], uri)
    if len(runs) < 2:
        raise UserError(f"{', '.join(map(str, names))}: only one tracked run; give at least two to compare")
    result = Comparison(groups=_groups(runs, one_folder=len(names) == 1), ui=ui_command(runs))
    if out is None:
        return result
    html = Path(out)
    result = replace(result, html=html, png=html.with_suffix(".png"))
    with atomic_path(html) as temporary:
        temporary.write_text(comparison_page(result), "utf-8")
    _plot(result.groups, html.with_suffix(".png"))
    return result


def print_comparison(result: Comparison) -> None:
    """Print tables, then the command that opens MLflow's page."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # File names may look like markup or like an emoji's name.
    console = Console(highlight=False, markup=False, emoji=False)
    for group in result.groups:
        for title, rows in (("last values", group.metrics), ("settings that differ", group.params)):
            lines = Table(title=Text(f"{group.title}: {title}", style="italic"), title_justify="left")
            lines.add_column("")
            for name in group.names:
                lines.add_column(Text(name), justify="right", overflow="fold")
            for name, values in rows.items():
                lines.add_row(*map(Text, (name, *values)))
            if rows:
                console.print(lines)
    if result.html is not None:
        console.print(f"Plots: {result.html}, {result.png}", soft_wrap=True)
    console.print("In MLflow:")
    # Printed without wrapping because a wrapped address cannot be copied.
    print(result.ui)


def short_names(names: Sequence[str]) -> list[str]:
    """Return the names without the leading folders that all of them share."""
    parts = [Path(name).parts for name in names]
    shared = 0
    while all(len(p) > shared + 1 for p in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    return [str(Path(*p[shared:])) for p in parts]


def comparison_page(result: Comparison) -> str:
    """Return the comparison as one self-contained HTML page."""
    body = ['<header><p class="eyebrow">X-Dub</p><h1>Runs side by side</h1></header>']
    for number, group in enumerate(result.groups):
        head = ["", *map(escape, group.names)]
        metrics = [[escape(name), *values] for name, values in group.metrics.items()]
        params = [[escape(name), *map(escape, values)] for name, values in group.params.items()]
        content = f'<div class="card">{_charts(group, f"group{number}")}</div>'
        content += f'<div class="card"><h3>Last values</h3>{table(head, metrics)}</div>'
        settings = table(head, params) if params else '<p class="note">The settings are the same.</p>'
        content += f'<div class="card"><h3>Settings that differ</h3>{settings}</div>'
        states = ", ".join(
            f"{n}: {run.status.lower()}" for n, run in zip(group.names, group.runs, strict=True)
        )
        body.append(section(group.title, states, content))
    body.append(
        section("In MLflow", "The same runs in MLflow's own comparison.", f"<pre>{escape(result.ui)}</pre>")
    )
    return page("X-Dub runs", "".join(body))


def _groups(runs: Sequence[TrackedRun], *, one_folder: bool) -> list[Group]:
    if one_folder:
        return [Group(title="Phases", runs=runs)]
    phases = list(dict.fromkeys(run.phase for run in runs))
    grouped = [Group(title=p or "Runs", runs=[run for run in runs if run.phase == p]) for p in phases]
    several = [group for group in grouped if len(group.runs) > 1]
    # Runs without a common phase are still compared, because the caller named them.
    return several or [Group(title="Runs", runs=runs)]


def _rows(columns: Sequence[Mapping[str, str]], *, only_different: bool) -> dict[str, list[str]]:
    names = sorted({name for column in columns for name in column})
    rows = {name: [column.get(name, "-") for column in columns] for name in names}
    return {name: row for name, row in rows.items() if not only_different or len(set(row)) > 1}


def _charts(group: Group, key: str) -> str:
    """Return all charts of a group as HTML with one legend; ``key`` begins their identifiers."""
    charts = [
        line_chart(f"{key}-{number}", chart.series(group.names), x_label=chart.x_label, y_label=chart.y_label)
        for number, chart in enumerate(group.charts)
    ]
    colours = [SERIES[number % len(SERIES)] for number in range(len(group.runs))]
    keys = [Series(name=name, y=[], colour=colour) for name, colour in zip(group.names, colours, strict=True)]
    return f'<div class="grid cols2">{"".join(f"<div>{chart}</div>" for chart in charts)}</div>{legend(keys)}'


def _plot(groups: Sequence[Group], path: Path) -> None:
    """Draw the charts in rows of at most PLOT_COLUMNS; every group begins a row."""
    rows = [
        (group, group.charts[low : low + PLOT_COLUMNS], low == 0)
        for group in groups
        for low in range(0, max(1, len(group.charts)), PLOT_COLUMNS)
    ]
    columns = max(1, *(len(charts) for _, charts, _ in rows))
    with chart_style():
        figure = new_figure(4.6 * columns, 3.3 * len(rows), dpi=120)
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for cells, (group, charts, is_first) in zip(grid, rows, strict=True):
            for axes in cells[len(charts) :]:
                axes.set_axis_off()
            for axes, chart in zip(cells, charts, strict=False):
                draw_lines(axes, chart.series(group.names), chart.x_label, chart.y_label)
            if is_first:
                cells[0].set_title(group.title, loc="left", fontweight="bold")
                if cells[0].lines:
                    cells[0].legend()
        save_png(figure, path)
