from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub.demo.page import build_report, duration
from xdub.evaluate.targets import missed
from xdub.report.charts import Series, line_chart, ticks
from xdub.report.strips import mouth_zoom, pick_frames, png, strip

VOID = {"meta", "img", "br", "i"}


class Balanced(HTMLParser):
    """Collects tags that are closed in the wrong order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None: ...

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def html() -> str:
    return build_report(synthetic.report_data())


def test_the_report_is_one_well_formed_file_that_loads_nothing(html: str) -> None:
    parser = Balanced()
    parser.feed(html)
    assert not parser.wrong and not parser.open
    assert "<script" not in html and "<link" not in html and "@import" not in html and "url(" not in html
    assert all(src.startswith("data:") for src in re.findall(r'src="([^"]{0,40})', html))


def test_the_report_holds_every_strip_as_a_picture_that_opens(html: str) -> None:
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert len(pictures) == 2 * 2 * 4  # clips x (frames, mouths) x (source, generator, editor, truth)
    for data in pictures:
        image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
        assert image.shape[1] == 8 * 132 + 7 * 3 and image[..., :3].std() > 5


def test_the_report_says_how_the_weights_began_and_labels_every_phase(html: str) -> None:
    assert "shipped weights" in html and "--from-scratch" in html
    assert "from random weights" in build_report(synthetic.report_data(warm=False))
    assert "plain correlation +0.050 and +0.050; the two true speeches have +0.040" in html
    for label in ("Generator: inpaints", "Editor, high noise", "Lip expert", "Texture expert", "mlflow ui"):
        assert label in html


def test_goals_that_are_missed_are_named_and_met_ones_are_not() -> None:
    good = synthetic.summary()
    assert missed(good) == []
    bad = {**good, "codec": 0.5, "editor": {**good["editor"], "leak_corr": -0.4, "lip_psnr": 1.0}}
    lines = "\n".join(missed(bad))
    for line in ("codec: 0.500 < 0.9", "editor leak_corr: -0.400", "editor lip_psnr"):
        assert line in lines
    data = synthetic.report_data()
    assert "All goals are met" in build_report(data)


def test_a_figure_that_is_not_a_number_is_a_missed_goal() -> None:
    good = synthetic.summary()
    lines = missed({**good, "editor": {**good["editor"], "opening_corr": float("nan")}})
    assert lines == ["editor opening_corr: nan (goal editor ≥ 0.85, generator ≥ 0.70)"]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_ticks_lie_inside_their_range_evenly_spaced_and_about_as_many_as_asked(
    low: float, span: float, count: int
) -> None:
    values = ticks(low, low + span, count)
    slack = 1e-6 * (abs(low) + span)
    assert all(low - slack <= v <= low + span + slack for v in values) and len(values) <= count + 1
    assert len(values) < 3 or np.allclose(np.diff(values), values[1] - values[0], atol=slack)


def test_a_gap_in_a_series_breaks_the_line_and_an_empty_chart_says_so() -> None:
    chart = line_chart([Series(name="a", y=[0, 1, float("nan"), 2, 3])])
    path = re.search(r' d="([^"]+)"', chart)
    assert path and path[1].count("M") == 2 and "nan" not in path[1]
    assert "No values" in line_chart([Series(name="a", y=[float("nan")])])


def test_text_from_outside_is_escaped() -> None:
    chart = line_chart([Series(name='<b>"x"', y=[1, 2])], x_label="<i>")
    assert "<b>" not in chart and "<i>" not in chart


def test_frames_are_picked_in_order_and_prefer_open_and_closed_mouths() -> None:
    opening = np.full(40, 0.1)
    opening[[7, 33]] = [0.5, 0.0]
    picked = pick_frames(opening, 4)
    assert list(picked) == sorted(picked) and 7 in picked and 33 in picked


def test_strips_keep_the_frames_pixels_in_order() -> None:
    frames = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (10, 90, 200)])
    image = strip(frames, 8, gap=2)
    assert image.shape == (8, 28, 4) and [int(image[4, x, 0]) for x in (4, 14, 24)] == [10, 90, 200]
    assert image[4, 9, 3] == 0  # the gap is transparent, so it suits dark pages
    assert np.array_equal(cv2.imdecode(np.frombuffer(png(frames[0]), np.uint8), 1), frames[0])


def test_the_mouth_zoom_is_centred_on_the_mouth_and_survives_missing_landmarks() -> None:
    points = synthetic.landmarks(2)
    points[1] = np.nan
    zoom = mouth_zoom(synthetic.faces(np.array([0.1, 0.1])), points)
    assert zoom.shape == (2, 64, 96, 3) and tuple(zoom[0, 30, 48]) == (150, 50, 60)


def test_durations_read_well() -> None:
    assert [duration(s) for s in (1.23, 45, 200, 3840)] == ["1.2 s", "45 s", "3 min 20 s", "1 h 04 min"]
