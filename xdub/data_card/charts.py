"""Charts of a data set's card: lengths, speakers, and the values of every check against its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xdub.data_card.facts import CheckValues, SetFacts
from xdub.report.charts import chart_style, inline_svg, new_figure
from xdub.report.palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
"""Charts of checks in a row."""
BINS = 30
"""Number of bars of a histogram."""
MOST_SPEAKERS = 60
"""Most speakers with a bar of their own."""


def set_chart(facts: SetFacts) -> str:
    """Return the histogram of the clips' lengths and the hours of each speaker as SVG."""
    with chart_style():
        figure = new_figure(9.0, 2.4)
        lengths, speakers = figure.subplots(1, 2)
        lengths.hist(facts.seconds.tolist(), bins=BINS, color=LIGHT["accent"])
        lengths.set(xlabel="length of a clip, s", ylabel="clips")
        hours = facts.hours_of_speaker[:MOST_SPEAKERS]
        speakers.bar(np.arange(1, len(hours) + 1), hours * 60, color=LIGHT["c2"])
        more = facts.speakers - len(hours)
        label = "speakers by length" + (f" (the first {len(hours)} of {facts.speakers})" if more > 0 else "")
        speakers.set(xlabel=label, ylabel="minutes")
        _whole_numbers(lengths, "y")
        _whole_numbers(speakers, "x")
        return inline_svg(figure, "set", f"Lengths of {facts.clips} clips and of {facts.speakers} speakers")


def checks_chart(checks: dict[str, CheckValues]) -> str:
    """Return a histogram of each check's values, kept and rejected, with its bounds, as SVG."""
    names = sorted(checks)
    if not names:
        return '<p class="note">The ledger has no values of checks.</p>'
    rows = -(-len(names) // COLUMNS)
    with chart_style():
        figure = new_figure(9.0, 1.7 * rows)
        panels = np.atleast_1d(figure.subplots(rows, COLUMNS)).ravel()
        for axes, name in zip(panels, names, strict=False):
            _histogram(axes, name, checks[name])
        for axes in panels[len(names) :]:
            axes.set_visible(False)
        return inline_svg(figure, "checks", f"Values of the checks {', '.join(names)} with their bounds")


def _histogram(axes: Axes, name: str, values: CheckValues) -> None:
    """Draw the values of one check; its bounds are dashed lines and always inside."""
    bounds = [bound for bound in (values.least, values.most) if bound is not None]
    every = np.array([*values.kept, *values.rejected, *bounds])
    low, high = float(every.min()), float(every.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    axes.hist(
        [values.kept, values.rejected],
        bins=np.linspace(low, high, BINS + 1).tolist(),
        stacked=True,
        color=[LIGHT["accent"], LIGHT["generator"]],
    )
    for bound in bounds:
        axes.axvline(bound, color=LIGHT["ink"], linewidth=1.2, linestyle="--")
    text = ", ".join(
        f"{word} {bound:g}"
        for word, bound in (("least", values.least), ("most", values.most))
        if bound is not None
    )
    axes.set_title(f"{name}: {text or 'no bound'}", fontsize=8.5, loc="left")
    _whole_numbers(axes, "y")


def _whole_numbers(axes: Axes, axis: str) -> None:
    """Label an axis with whole numbers only, and draw the grid below the bars."""
    from matplotlib.ticker import MaxNLocator

    axes.set_axisbelow(True)
    (axes.yaxis if axis == "y" else axes.xaxis).set_major_locator(MaxNLocator(nbins=4, integer=True))
