"""The demo's report: one self-contained file with every strip, curve and figure."""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import cv2
import numpy as np
import pytest

from xdub.demo.report_data import ReportData
from xdub.demo.report_page import build_report
from xdub.evaluate.metrics import HELD_OUT
from xdub.evaluate.targets import GOALS, missed


class Balanced(HTMLParser):
    """Parser that collects tags that are closed in the wrong order, and all identifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def html(report_of: Callable[..., ReportData]) -> str:
    return build_report(report_of())


def test_the_report_is_one_well_formed_file_that_loads_nothing(html: str) -> None:
    parser = Balanced()
    parser.feed(html)
    assert not parser.wrong and not parser.open
    assert "<script" not in html and "<link" not in html and "@import" not in html
    assert not re.search(r"url\((?!#)", html), "every reference is to a part of the page"
    assert all(src.startswith("data:") for src in re.findall(r'src="([^"]{0,40})', html))


def test_the_identifiers_of_a_page_are_unique_and_every_reference_exists(html: str) -> None:
    parser = Balanced()
    parser.feed(html)
    assert len(parser.ids) == len(set(parser.ids)) >= 6
    assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', html)) <= set(parser.ids)


def test_the_same_figures_give_the_same_page(html: str, report_of: Callable[..., ReportData]) -> None:
    assert build_report(report_of()) == html


def test_the_report_holds_every_strip_as_a_picture_that_opens(html: str) -> None:
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    clips, kinds, versions = 2, ("frames", "mouths"), ("source", "generator", "editor", "truth")
    assert len(pictures) == clips * len(kinds) * len(versions)
    for data in pictures:
        image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
        assert image.shape[1] == 8 * 132 + 7 * 3 and image[..., :3].std() > 5


def test_the_report_names_the_initial_weights_and_every_phase(
    html: str, report_of: Callable[..., ReportData]
) -> None:
    assert "shipped weights" in html and "--from-scratch" in html
    assert "from random weights" in build_report(report_of(warm=False))
    assert "plain correlation +0.050 and +0.050; the two true speeches have +0.040 by chance" in html
    for label in ("Generator: inpaints", "Editor, high noise", "Lip expert", "Texture expert", "mlflow ui"):
        assert label in html


def test_every_metric_has_a_row_and_every_goal_a_card(html: str) -> None:
    assert all(metric.label in html and metric.meaning in html.replace("&#x27;", "'") for metric in HELD_OUT)
    assert html.count('class="card kpi"') == len(GOALS) == 4


def test_goals_that_are_missed_are_named_and_goals_that_are_met_are_not(
    html: str, summary_of: Callable[..., dict[str, Any]]
) -> None:
    good = summary_of()
    assert missed(good) == []
    bad = {**good, "codec": 0.5, "editor": {**good["editor"], "leak_corr": -0.4, "lip_psnr": 1.0}}
    lines = "\n".join(missed(bad))
    for line in ("codec: 0.500 < 0.9", "editor leak_corr: -0.400", "editor lip_psnr: 1.00 dB"):
        assert line in lines
    assert "All goals are met" in html


def test_a_summary_of_an_older_version_is_shown_without_the_metrics_that_it_lacks(
    report_of: Callable[..., ReportData],
) -> None:
    data = report_of()
    models = {model: {"opening_corr": 0.9} for model in ("generator", "editor")}
    html = build_report(dataclasses.replace(data, summary={**data.summary, **models, "details": {}}))
    assert HELD_OUT[0].label in html and HELD_OUT[1].label not in html and "All goals are met" in html


def test_a_figure_that_is_not_a_number_is_a_missed_goal(summary_of: Callable[..., dict[str, Any]]) -> None:
    good = summary_of()
    lines = missed({**good, "editor": {**good["editor"], "opening_corr": float("nan")}})
    assert lines == ["editor opening_corr: nan (goal editor ≥ 0.85, generator ≥ 0.70)"]
