"""PAIRS/filters.png and .svg: the values that the filters measured and their thresholds, drawn from the ledger."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xdub.config import Recipe
from xdub.data.ledger import Ledger, LedgerRow, last_change_ns
from xdub.files.storage import Location, locate
from xdub.report.palette import ACCENT, SECOND

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEPT, REJECTED, FAILED, LINE = ACCENT, SECOND, "#8a8f98", "#1d2430"
"""Colours of kept, rejected and failed rows, and of the threshold."""
BINS = 30
"""Approximate number of bins of a histogram."""
PICTURE = "filters.png"
"""File name of the picture in a pair folder."""
SUFFIXES = (".svg", ".png")
"""File types that are written."""


def draw_filters(out: str | Path | Location, recipe: Recipe) -> Location:
    """Draw the pictures of the pair folder OUT; return the PNG's location.

    The figure has histograms of identity and mouth distance, kept and rejected pairs stacked, with the recipe's
    thresholds, and a bar chart of the ledger's rows by result. Raise UserError if the ledger cannot be read.
    """
    out = locate(out)
    figure = filter_figure(list(Ledger(out).rows()), recipe)
    for suffix in SUFFIXES:
        picture = io.BytesIO()
        figure.savefig(picture, format=suffix.removeprefix("."))
        (out / f"filters{suffix}").write_bytes(picture.getvalue())
    return out / PICTURE


def update_filter_plots(out: str | Path | Location, recipe: Recipe) -> Location | None:
    """Call `draw_filters` if the ledger is newer than its pictures; otherwise return None."""
    out = locate(out)
    written = last_change_ns(out)
    drawn = [(out / f"filters{suffix}").info() for suffix in SUFFIXES]
    if all(picture.is_file and (picture.mtime_ns or 0) > written for picture in drawn):
        return None
    return draw_filters(out, recipe)


def filter_figure(rows: Sequence[LedgerRow], recipe: Recipe) -> Figure:
    """Draw the rows of a pair ledger."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.9), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    identity, mouth, results = figure.subplots(1, 3, width_ratios=(1, 1, 0.9))
    _histogram(identity, rows, "identity", recipe.identity_threshold)
    _histogram(mouth, rows, "mouth_distance", recipe.pairs.mouth_threshold)
    embedder, reader = recipe.perception.identity, recipe.perception.mouth
    identity.set_xlabel(f"identity: cosine of V and V' ({embedder})", fontsize=9)
    mouth.set_xlabel(f"mouth distance, template px ({reader})", fontsize=9)
    identity.set_ylabel("pairs", fontsize=9)
    _result_bars(results, rows)
    for axes in (identity, mouth, results):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure


def scores(rows: Sequence[LedgerRow], name: str, status: str) -> np.ndarray:
    """Return the finite values [n] of a score among the rows of a status."""
    values = [row.scores[name] for row in rows if row.status == status and name in row.scores]
    return np.array([value for value in values if np.isfinite(value)], float)


def _histogram(axes: Axes, rows: Sequence[LedgerRow], name: str, threshold: float) -> None:
    from matplotlib.ticker import MaxNLocator

    groups = {status: scores(rows, name, status) for status in ("kept", "rejected")}
    # The threshold is always inside the picture.
    every = np.concatenate([*groups.values(), [threshold]])
    edges = _edges(float(every.min()), float(every.max()), threshold)
    below = sum(int((values < threshold).sum()) for values in groups.values())
    total = sum(map(len, groups.values()))
    axes.hist(
        list(groups.values()),
        bins=edges.tolist(),
        stacked=True,
        color=[KEPT, REJECTED],
        label=[f"{status} ({len(values)})" for status, values in groups.items()],
        edgecolor="white",
        linewidth=0.4,
    )
    label = f"threshold {threshold:g}"
    axes.axvline(threshold, ymax=0.86, label=label, color=LINE, linewidth=1.2, linestyle="--", zorder=3)
    axes.set_title(f"{below} of {total} below {threshold:g}", fontsize=9, loc="left")
    # Leave room for the legend.
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=3, columnspacing=1.0, handlelength=1.4)


def _edges(low: float, high: float, threshold: float) -> np.ndarray:
    """Return borders of about `BINS` bins around [low, high]. One border is the threshold, so no bin spans it."""
    step = max((high - low) / BINS, 1e-3)
    below, above = np.floor((low - threshold) / step) - 1, np.ceil((high - threshold) / step) + 2
    return threshold + step * np.arange(below, above)


def _result_bars(axes: Axes, rows: Sequence[LedgerRow]) -> None:
    """Draw the number of rows that were kept, rejected by each check (with its median value), or failed."""
    from matplotlib.ticker import MaxNLocator

    bars = [("kept", KEPT, [row for row in rows if row.status == "kept"])]
    rejected = [row for row in rows if row.status == "rejected"]
    for check in sorted({row.check for row in rejected}, key=lambda c: -sum(r.check == c for r in rejected)):
        bars.append((check, REJECTED, [row for row in rejected if row.check == check]))
    failed = [row for row in rows if row.status == "failed"]
    if failed:
        bars.append(("failed", FAILED, failed))
    drawn = axes.barh(
        [name for name, _, _ in bars], [len(group) for _, _, group in bars], color=[c for _, c, _ in bars]
    )
    axes.bar_label(
        drawn, labels=[_bar_label(group, len(rows)) for _, _, group in bars], padding=3, fontsize=8
    )
    # Bars start at the top; the axis has room for six, so that a single bar does not fill it.
    axes.set_ylim(max(len(bars), 6) - 0.5, -0.5)
    axes.set_xlim(0, 1.7 * max(1, *(len(group) for _, _, group in bars)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("rows of the ledger", fontsize=9)
    axes.set_title(f"results of {len(rows)} inputs, by the check that decided", fontsize=9, loc="left")


def _bar_label(rows: Sequence[LedgerRow], total: int) -> str:
    text = f"{len(rows)} ({len(rows) / max(1, total):.0%})"
    values = [row.value for row in rows if row.value is not None and np.isfinite(row.value)]
    return text + (f", median {np.median(values):.2g}" if values else "")
