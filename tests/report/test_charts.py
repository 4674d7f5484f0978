"""Charts as SVG inside a page."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from xdub.report.charts import Series, chart_style, draw_lines, legend, line_chart, new_figure, save_png
from xdub.report.palette import DARK, LIGHT, ROLES, SERIES


def test_a_gap_in_a_series_breaks_the_line_and_an_empty_chart_shows_a_note() -> None:
    chart = line_chart("a", [Series(name="a", y=[0, 1, float("nan"), 2, 3])])
    (path,) = re.findall(r'<path d="([^"]+)"[^>]*stroke: var\(--accent\)', chart)
    assert path.count("M") == 2 and "nan" not in path
    assert "No values" in line_chart("a", [Series(name="a", y=[float("nan")])])
    assert "No values" in line_chart("a", [])


def test_text_from_outside_is_escaped() -> None:
    chart = line_chart("a", [Series(name='<b>"x"', y=[1, 2])], x_label="<i>")
    assert "<b>" not in chart and "<i>" not in chart
    assert "<b>" not in legend([Series(name="<b>", y=[])])


def test_colours_are_the_pages_and_text_has_the_pages_font() -> None:
    series = [Series(name=name, y=[1, 2], colour=name, points=True) for name in SERIES]
    chart = line_chart("a", series, x_label="step", y_label="loss")
    assert not re.search(r"#[0-9a-f]{6}\b", chart) and "font-family" not in chart and "<style" not in chart
    assert all(f"stroke: var(--{name})" in chart for name in SERIES)
    assert ">step</text>" in chart and ">loss</text>" in chart


def test_a_chart_is_the_same_text_each_time_and_two_charts_share_no_identifier() -> None:
    series = [Series(name="a", y=[1, 2], points=True)]
    first, again, other = (line_chart(key, series) for key in ("a", "a", "b"))
    assert first == again
    ids = [set(re.findall(r' id="([^"]+)"', chart)) for chart in (first, other)]
    assert ids[0] and not ids[0] & ids[1]
    assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', first)) <= ids[0]


def test_every_colour_has_a_dark_counterpart() -> None:
    assert list(LIGHT) == list(DARK)
    assert {*ROLES.values(), *SERIES} <= set(LIGHT)
    assert len(set(LIGHT.values())) == len(LIGHT), "a colour of a chart belongs to one variable of the page"


def test_the_name_of_a_series_is_text_whatever_its_signs_are(tmp_path: Path) -> None:
    names = ["$a^$", "_hidden", "100%", "漢🎬\n"]
    with warnings.catch_warnings(), chart_style():
        warnings.simplefilter("error", append=True)
        figure = new_figure(4, 3)
        axes = figure.subplots()
        draw_lines(axes, [Series(name=name, y=[1, 2]) for name in names])
        axes.legend()
        save_png(figure, tmp_path / "a.png")
    assert [text.get_text().strip() for text in axes.get_legend().get_texts()] == [n.strip() for n in names]
