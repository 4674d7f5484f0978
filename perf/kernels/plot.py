"""`python -m perf plot FILE`: bars of one result file, a panel for every kernel and mode."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from perf import rows
from xdub.report.palette import ACCENT

OURS, THEIRS = ACCENT, "#b8bfcc"


def figure(measured: list[dict[str, Any]]):
    """Draw the share of the measured ceiling, ours in colour."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: dict[str, list[dict[str, Any]]] = {}
    for row in measured:
        panels.setdefault(f"{row['kernel']} {row['shape']}, {row['mode']}", []).append(row)
    columns = 2
    lines = -(-len(panels) // columns)
    chart = Figure(figsize=(11, 0.6 + 1.9 * lines), dpi=130, layout="constrained")
    FigureCanvasAgg(chart)
    axes = chart.subplots(lines, columns, squeeze=False).flatten()
    for axis, (title, group) in zip(axes, panels.items(), strict=False):
        names = [row["provider"] for row in group]
        bars = axis.barh(
            names,
            [100 * row["of_ceiling"] for row in group],
            color=[OURS if name.startswith("xdub") else THEIRS for name in names],
        )
        axis.bar_label(bars, labels=[f"{row['p50_ms']:.3g} ms" for row in group], padding=3, fontsize=8)
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_xlim(0, 118)
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    chart.supxlabel("% of the measured ceiling", fontsize=9)
    return chart


def add_parser(commands: Any) -> None:
    """Add the command `plot` and its options."""
    parser = commands.add_parser("plot", help="draw a result file")
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, default=None, help="picture (default: beside the file)")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    try:
        measured = rows.measured(rows.read(args.file))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if not measured:
        print(f"{args.file} has no measured rows to draw", file=sys.stderr)
        return 2
    out = args.out or args.file.with_suffix(".png")
    figure(measured).savefig(out)
    print(f"wrote {out}")
    return 0
