"""What docs/cluster.md tells of a run on one machine is what its result file says."""

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


def test_the_seconds_are_those_of_the_result(result):
    told = {
        name: float(value) for name, value in re.findall(r"^\| ([a-z0-9 ,]+) \| ([\d.]+) \|$", PAGE, re.M)
    }
    stages = {f"of it, {name}": value for name, value in result["seconds_per_stage"].items()}
    assert told == result["seconds"] | stages


def test_the_stop_lost_nothing_and_everything_finished(result):
    generator = result["generator"]
    assert generator["each_once"] and generator["attempts"] == [1, 2]
    assert generator["continued_at"] == generator["stopped_at"] + 1
    assert (
        f"stopped at step {generator['stopped_at']} and went on with step {generator['continued_at']}" in PAGE
    )
    assert set(result["runs"].values()) == {"FINISHED"} and len(result["runs"]) == 6
    assert [job["status"] for job in result["jobs"]] == ["SUCCEEDED", "STOPPED", "SUCCEEDED"]
    assert result["bundle"] and not result["environment"]["dirty"]


def test_the_picture_is_there_and_small():
    path = ROOT / "docs/images/dashboard_job.png"
    assert "](images/dashboard_job.png)" in PAGE and path.stat().st_size < 250_000
    with Image.open(path) as picture:
        assert picture.width >= 1200
