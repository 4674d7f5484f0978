"""Tests that docs/cluster.md states the figures of docs/results/submit.json."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/cluster.md").read_text("utf-8")


@pytest.fixture(scope="module")
def result() -> dict:
    return json.loads((ROOT / "docs/results/submit.json").read_text("utf-8"))


def test_the_seconds_on_the_page_are_those_of_the_result_file(result):
    rows = re.findall(r"^\| ([a-z0-9 ,]+) \| ([\d.]+) \|$", PAGE, re.M)
    seconds = {name: float(value) for name, value in rows}
    stages = {f"of which {name}": value for name, value in result["seconds_per_stage"].items()}
    assert seconds == result["seconds"] | stages


def test_a_stopped_run_continues_with_the_next_step_and_finishes(result):
    generator = result["generator"]
    assert generator["each_once"] and generator["attempts"] == [1, 2]
    assert generator["continued_at"] == generator["stopped_at"] + 1
    steps = f"stopped at step {generator['stopped_at']} and continued with step {generator['continued_at']}"
    assert steps in " ".join(PAGE.split())
    assert set(result["runs"].values()) == {"FINISHED"} and len(result["runs"]) == 6
    assert [job["status"] for job in result["jobs"]] == ["SUCCEEDED", "STOPPED", "SUCCEEDED"]
    assert result["bundle"] and not result["environment"]["dirty"]


def test_the_page_shows_a_picture_of_the_dashboard_of_at_most_250_kb():
    path = ROOT / "docs/images/dashboard_job.png"
    assert "](images/dashboard_job.png)" in PAGE and path.stat().st_size < 250_000
    with Image.open(path) as picture:
        assert picture.width >= 1200
