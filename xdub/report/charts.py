"""Line charts drawn by matplotlib: as SVG inside a page, coloured by the page (dark or light), or as a PNG file."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xdub.report.palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

UNUSED = (
    r"<metadata>.*?</metadata>",
    r"<style.*?</style>",
    r"<!--.*?-->",
    r"<defs>\s*</defs>",
    r" font-family: [^;\"]+;",
    r' transform="rotate\(-0 [^"]*"',
)
"""Parts of matplotlib's SVG that a page does not need: its fonts, its global style and rotations by zero degrees."""
Values = Sequence[float] | np.ndarray
"""Numbers of a series [N]; nan breaks the line."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart."""

    name: str
    """Text in the legend; an empty name has none."""
    y: Values
    x: Values | None = None
    """Positions of the values; None stands for 0, 1, 2, ..."""
    colour: str = "accent"
    """Name in `xdub.report.palette.LIGHT`."""
    dashed: bool = False
    """True: the line is thin and dashed, because it is there for comparison."""
    faint: bool = False
    """True: the line is pale, because a smoothed one is drawn over it."""
    points: bool = False
    """True: every value is marked."""

    @property
    def is_empty(self) -> bool:
        """True if no value is finite."""
        return not np.isfinite(np.asarray(self.y, dtype=np.float64)).any()


@contextmanager
def chart_style() -> Iterator[None]:
    """Apply the look of our charts to figures that are created and saved inside the block."""
    import matplotlib

    soft, line = LIGHT["soft"], LIGHT["line"]
    settings: dict[RcKeyType, Any] = {
        "font.size": 9, "axes.labelsize": 9, "axes.labelcolor": soft, "axes.titlecolor": LIGHT["ink"],
        "text.color": soft, "xtick.color": soft, "ytick.color": soft, "axes.edgecolor": line,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
        "axes.grid": True, "axes.grid.axis": "y", "grid.color": line, "grid.linewidth": 0.8,
        "xtick.major.size": 0, "ytick.major.size": 0, "legend.frameon": False, "legend.fontsize": 8,
        "lines.linewidth": 1.8, "lines.solid_joinstyle": "round", "lines.solid_capstyle": "round",
        # A run's name may hold `$`, and signs that the font lacks.
        "svg.fonttype": "none", "text.parse_math": False,
    }  # fmt: skip
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def new_figure(width: float, height: float, dpi: int = 100) -> Figure:
    """Create an empty figure of ``width`` x ``height`` inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_lines(axes: Axes, series: Sequence[Series], x_label: str = "", y_label: str = "") -> None:
    """Draw the series into axes that were created in `chart_style`."""
    for item in series:
        x = np.arange(len(item.y)) if item.x is None else np.asarray(item.x)
        axes.plot(
            x,
            np.asarray(item.y, dtype=np.float64),
            # Matplotlib leaves a label out of the legend if it begins with an underscore.
            label=(f" {item.name}" if item.name.startswith("_") else item.name) or "_nolegend_",
            color=LIGHT[item.colour],
            alpha=0.28 if item.faint else 1.0,
            linewidth=1.2 if item.dashed or item.faint else 1.8,
            linestyle="--" if item.dashed else "-",
            marker="o" if item.points else "",
            markersize=3.0,
            clip_on=False,
        )
    axes.set(xlabel=x_label, ylabel=y_label)


def line_chart(
    key: str,
    series: Sequence[Series],
    *,
    x_label: str = "",
    y_label: str = "",
    size: tuple[float, float] = (6.0, 2.5),
) -> str:
    """Return the series as SVG for a page, or a note if no value is finite.

    ``key`` is an identifier that no other chart of the page has; ``size`` is in inches and only sets the proportions
    of lines and text to the whole, because the page scales the chart to its column.
    """
    if all(item.is_empty for item in series):
        return '<p class="note">No values were recorded.</p>'
    label = f"{y_label} over {x_label}: {', '.join(item.name for item in series if item.name)}"
    with chart_style():
        figure = new_figure(*size)
        draw_lines(figure.subplots(), series, x_label, y_label)
        return inline_svg(figure, key, label)


def inline_svg(figure: Figure, key: str, label: str) -> str:
    """Return a figure as SVG markup to stand inside a page; call it in `chart_style`.

    The same figure gives the same text. Colours of the palette become the page's variables, fonts are the page's, and
    the identifiers begin with ``key``, so that several charts fit into one page. ``label`` is the text alternative for
    readers who cannot see the chart.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    body = text[text.index("<svg") :]
    for pattern in UNUSED:
        body = re.sub(pattern, "", body, flags=re.DOTALL)
    # Matplotlib 3.10 writes size and family as one property.
    body = re.sub(r"\bfont: (?:\w+ )*?([\d.]+px) [^;\"]+", r"font-size: \1", body)
    body = re.sub(r"\s+", " ", body).replace("> <", "><")
    references = set(re.findall(r'(?:url\(|href=")#([\w-]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in references else "", body)
    for name in references:
        body = body.replace(f'id="{name}"', f'id="{key}-{name}"').replace(f"#{name}", f"#{key}-{name}")
    for name, colour in reversed(LIGHT.items()):
        body = body.replace(f": {colour}", f": var(--{name})")
    body = body.replace("<g/>", "")
    box = re.search(r'viewBox="[^"]+"', body)
    assert box is not None
    start = f'<svg class="chart" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img"'
    return re.sub(r"<svg[^>]*>", lambda _: f'{start} aria-label="{escape(label)}">', body, count=1).strip()


def legend(series: Sequence[Series]) -> str:
    """Return the HTML legend of the named series."""
    keys = (
        f'<span class="key{" dashed" if item.dashed else ""}" style="--k:var(--{item.colour})">'
        f"<i></i>{escape(item.name)}</span>"
        for item in series
        if item.name
    )
    return f'<div class="legend">{"".join(keys)}</div>'


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file on white, which appears complete or not at all; call it in `chart_style`."""
    from xdub.files.atomic import atomic_path

    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", facecolor="white")


def smooth(values: Values, share: float = 0.06) -> np.ndarray:
    """Return the running mean [N] over ``share`` of the series (at least 3 points); windows shrink at both ends."""
    data = np.asarray(values, dtype=np.float64)
    half = max(1, round(len(data) * share / 2))
    return np.array([np.nanmean(data[max(0, i - half) : i + half + 1]) for i in range(len(data))])
