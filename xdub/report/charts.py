"""Small line and bar charts as inline SVG text: crisp at every size, coloured by the page (dark or light), no
dependency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isfinite, log10

import numpy as np

LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 34  # margins in SVG units


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line. ``style`` is a CSS class of the page: truth, editor, generator, old, faint, or c0..c5."""

    name: str
    y: Sequence[float]
    x: Sequence[float] | None = None
    style: str = "c0"


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str = "",
    y_label: str = "",
    width: int = 560,
    height: int = 210,
    y_range: tuple[float, float] | None = None,
) -> str:
    """SVG text of the lines; nan breaks a line; a series without x counts 0, 1, 2, ..."""
    points = [(_array(s.x if s.x is not None else range(len(s.y))), _array(s.y)) for s in series]
    xs = np.concatenate([x for x, _ in points]) if points else np.zeros(0)
    ys = np.concatenate([y[np.isfinite(y)] for _, y in points]) if points else np.zeros(0)
    if not len(xs) or not len(ys):
        return '<p class="note">No values were recorded.</p>'
    x_low, x_high = _spread(float(xs.min()), float(xs.max()))
    y_low, y_high = y_range or _pad(*_spread(float(ys.min()), float(ys.max())))

    def px(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (width - LEFT - RIGHT)

    def py(y: float) -> float:
        return (
            height
            - BOTTOM
            - (min(max(y, y_low), y_high) - y_low) / (y_high - y_low) * (height - TOP - BOTTOM)
        )

    label = escape(f"{y_label} over {x_label}: {', '.join(s.name for s in series if s.name)}")
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">']
    for y in ticks(y_low, y_high, 4):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{py(y):.1f}" y2="{py(y):.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{py(y) + 3.5:.1f}" text-anchor="end">{_short(y)}</text>'
        )
    for x in ticks(x_low, x_high, 6):
        parts.append(
            f'<text class="tick" x="{px(x):.1f}" y="{height - BOTTOM + 15}" text-anchor="middle">'
            f"{_short(x)}</text>"
        )
    middle = (LEFT + width - RIGHT) / 2
    parts.append(
        f'<text class="axis" x="{middle}" y="{height - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    if y_label:
        parts.append(
            f'<text class="axis" transform="translate(11 {(TOP + height - BOTTOM) / 2}) rotate(-90)" '
            f'text-anchor="middle">{escape(y_label)}</text>'
        )
    for one, (x, y) in zip(series, points, strict=True):
        path, pen = [], "M"
        for a, b in zip(x, y, strict=True):
            if not isfinite(b):
                pen = "M"
                continue
            path.append(f"{pen}{px(a):.1f} {py(b):.1f}")
            pen = "L"
        parts.append(
            f'<path class="line {one.style}" d="{"".join(path)}"><title>{escape(one.name)}</title></path>'
        )
    return "".join([*parts, "</svg>"])


def legend(series: Sequence[Series]) -> str:
    """HTML legend of the named series."""
    keys = (f'<span class="key {s.style}"><i></i>{escape(s.name)}</span>' for s in series if s.name)
    return f'<div class="legend">{"".join(keys)}</div>'


def smooth(values: Sequence[float], share: float = 0.06) -> np.ndarray:
    """Running mean [N] over ``share`` of the series (at least 3 points), edges by what there is."""
    data = _array(values)
    half = max(1, round(len(data) * share / 2))
    return np.array([np.nanmean(data[max(0, i - half) : i + half + 1]) for i in range(len(data))])


def ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers inside [low, high]."""
    raw = (high - low) / max(1, count)
    unit = 10 ** floor(log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    first = np.ceil(low / step - 1e-9)
    return [float(step * k) + 0.0 for k in np.arange(first, floor(high / step + 1e-9) + 1)]


def _array(values: Sequence[float]) -> np.ndarray:
    return np.asarray(list(values), dtype=np.float64)


def _spread(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _pad(low: float, high: float) -> tuple[float, float]:
    gap = 0.06 * (high - low)
    return low - gap if low < 0 or low > 3 * gap else min(low, 0.0), high + gap


def _short(value: float) -> str:
    if value and abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.3g}"
