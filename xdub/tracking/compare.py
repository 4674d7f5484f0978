"""`xdub runs compare`: what was set differently, what came out, and the loss curves over one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from xdub.errors import UserError
from xdub.files.atomic import atomic_path
from xdub.report.charts import Series, legend, line_chart, smooth
from xdub.report.page import page, section, table
from xdub.tracking.read import BAND, TrackedRun, read_runs, ui_command

COLOURS = ("c0", "c1", "c2", "c3", "c4", "c5")
PLOT_COLUMNS = 3
PLOT_COLOURS = ("#3457d5", "#d9730d", "#0f8a7e", "#9333a8", "#b8860b", "#64748b")


Line = tuple[Sequence[float], Sequence[float]]
"""x, y"""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One quantity of all runs of a group, over one another."""

    y_label: str
    x_label: str
    lines: Sequence[Line | None]
    """Of each run; None where it has none."""
    noisy: bool = False
    """To be smoothed."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that stand side by side: the same phase of several folders, or the phases of one."""

    title: str
    runs: Sequence[TrackedRun]

    @property
    def names(self) -> list[str]:
        return short_names([run.name for run in self.runs])

    @property
    def params(self) -> dict[str, list[str]]:
        """Those that differ: name -> value of each run, "-" where a run has none."""
        return _rows([run.settings for run in self.runs], only_different=True)

    @property
    def metrics(self) -> dict[str, list[str]]:
        """Last values of each run; those by noise band are for the charts."""
        shown = [
            {name: f"{value:.4g}" for name, value in run.metrics.items() if BAND not in name}
            for run in self.runs
        ]
        return _rows(shown, only_different=False)

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
    """What `compare_runs` found, and the files it wrote, if any."""

    groups: Sequence[Group]
    ui: str
    """Shell lines that open MLflow's own comparison."""
    html: Path | None = None
    png: Path | None = None


def compare_runs(
    names: Sequence[str | Path], out: str | Path | None = None, *, uri: str | None = None
) -> Comparison:
    """Compare tracked runs: folders, FOLDER/PHASE, or MLflow ids with ``uri``.

    Several folders are compared phase by phase, a single folder's phases with one another. ``out`` is an HTML
    file to write; a PNG of the loss curves goes beside it. Raises UserError for fewer than two runs or one
    that is not there.
    """
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
    with atomic_path(html.with_suffix(".png")) as temporary:
        _plot(result.groups, temporary)
    return result


def print_comparison(result: Comparison) -> None:
    """Tables for the terminal, then the command for MLflow's page."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for group in result.groups:
        for title, rows in (("last values", group.metrics), ("settings that differ", group.params)):
            lines = Table(title=f"{group.title}: {title}", title_justify="left")
            lines.add_column("")
            for name in group.names:
                lines.add_column(name, justify="right", overflow="fold")
            for name, values in rows.items():
                lines.add_row(name, *values)
            if rows:
                console.print(lines)
    if result.html is not None:
        console.print(f"Plots: {result.html}, {result.png}", highlight=False)
    console.print("In MLflow:", highlight=False)
    print(result.ui)  # as it is: a wrapped address cannot be copied


def short_names(names: Sequence[str]) -> list[str]:
    """Without the folders that all names share."""
    parts = [Path(name).parts for name in names]
    shared = 0
    while all(len(p) > shared + 1 for p in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    return [str(Path(*p[shared:])) for p in parts]


def comparison_page(result: Comparison) -> str:
    """Self-contained HTML."""
    body = ['<header><p class="eyebrow">X-Dub</p><h1>Runs side by side</h1></header>']
    for group in result.groups:
        head = ["", *map(escape, group.names)]
        metrics = [[escape(name), *values] for name, values in group.metrics.items()]
        params = [[escape(name), *map(escape, values)] for name, values in group.params.items()]
        content = f'<div class="card">{_charts(group)}</div>'
        content += f'<div class="card"><h3>Last values</h3>{table(head, metrics)}</div>'
        same = '<p class="note">The settings are the same.</p>'
        settings = table(head, params) if params else same
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
    # No phase in common: still side by side, since that is what was asked for.
    return several or [Group(title="Runs", runs=runs)]


def _rows(columns: Sequence[Mapping[str, str]], *, only_different: bool) -> dict[str, list[str]]:
    names = sorted({name for column in columns for name in column})
    rows = {name: [column.get(name, "-") for column in columns] for name in names}
    return {name: row for name, row in rows.items() if not only_different or len(set(row)) > 1}


def _charts(group: Group) -> str:
    styles = [COLOURS[i % len(COLOURS)] for i in range(len(group.runs))]
    keys = [Series(name=name, y=[], style=style) for name, style in zip(group.names, styles, strict=True)]
    charts = []
    for chart in group.charts:
        lines = [
            Series(name=name, x=line[0], y=smooth(line[1]) if chart.noisy else line[1], style=style)
            for name, style, line in zip(group.names, styles, chart.lines, strict=True)
            if line is not None
        ]
        charts.append(line_chart(lines, x_label=chart.x_label, y_label=chart.y_label))
    return f'<div class="grid cols2">{"".join(f"<div>{chart}</div>" for chart in charts)}</div>{legend(keys)}'


def _plot(groups: Sequence[Group], path: Path) -> None:
    """Charts in rows of at most PLOT_COLUMNS; every group begins a row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [
        (group, group.charts[low : low + PLOT_COLUMNS], low == 0)
        for group in groups
        for low in range(0, max(1, len(group.charts)), PLOT_COLUMNS)
    ]
    columns = max(1, *(len(charts) for _, charts, _ in rows))
    figure = Figure(figsize=(4.6 * columns, 3.3 * len(rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (group, charts, is_first) in zip(grid, rows, strict=True):
        for place in axes[len(charts) :]:
            place.set_axis_off()
        for place, chart in zip(axes, charts, strict=False):
            _draw(place, chart, group.names)
        if is_first:
            axes[0].set_title(group.title, loc="left", fontweight="bold")
            if axes[0].lines:
                axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path)


def _draw(axes: Any, chart: Chart, names: Sequence[str]) -> None:
    for i, (name, line) in enumerate(zip(names, chart.lines, strict=True)):
        if line is None:
            continue
        colour = PLOT_COLOURS[i % len(PLOT_COLOURS)]
        if chart.noisy:
            axes.plot(*line, color=colour, alpha=0.25, linewidth=1)
            axes.plot(line[0], smooth(line[1]), color=colour, label=name)
        else:
            axes.plot(*line, color=colour, marker="o", markersize=3, label=name)
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
