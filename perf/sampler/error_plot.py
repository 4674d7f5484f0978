"""Plot of quality against evaluations, one line per solver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xdub.report.palette import ACCENT, SECOND

COLOURS = {"euler": ACCENT, "heun": SECOND, "ab2": "#2b8a5f"}
"""Colour of each solver."""
PANELS = {
    "opening_corr": "opening correlation with the twin",
    "exact_psnr": "dB to 64 steps",
}
"""Figure and label of each panel."""


def draw(rows: Sequence[dict[str, Any]], exact: dict[str, Any], chosen: dict[str, Any], path: Path) -> None:
    """Write the picture: a row of panels per shift; a ring marks the recipe's setting."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shifts = list(dict.fromkeys(row["shift"] for row in rows))
    figure = Figure(figsize=(9, 0.4 + 3.1 * len(shifts)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(shifts), len(PANELS), squeeze=False, sharex=True, sharey="col")
    for shift, line in zip(shifts, axes, strict=True):
        mine = [row for row in rows if row["shift"] == shift]
        for (key, label), axis in zip(PANELS.items(), line, strict=True):
            for solver, colour in COLOURS.items():
                points = [(row["evaluations"], row[key]) for row in mine if row["solver"] == solver]
                axis.plot(*zip(*points, strict=True), "o-", color=colour, label=solver, markersize=4)
            if key == "opening_corr":
                axis.axhline(exact[key], color="#999", linewidth=0.8, linestyle="--", label="64 steps")
            if shift == chosen["shift"]:
                point = chosen["evaluations"], chosen[key]
                axis.plot(
                    *point, "o", markersize=11, markerfacecolor="none", color="#333", label="the recipe"
                )
            axis.set_title(f"shift {shift:g}", loc="left", fontsize=9)
            axis.set_ylabel(label)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.2)
    for axis in axes[-1]:
        axis.set_xlabel("evaluations of the model")
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.savefig(path)
