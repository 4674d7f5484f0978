"""Tests that the costs in cluster/README.md are those of the stored plan, and that the code still computes that plan."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PHASES = ("generator", "editor", "lip", "texture")


@pytest.fixture(scope="module")
def plan() -> dict:
    return json.loads((ROOT / "docs/results/plan_cluster.json").read_text("utf-8"))["phases"]


def row(label: str) -> list[float]:
    (line,) = re.findall(
        rf"^\| {re.escape(label)} \|(.+)\|$", (ROOT / "cluster/README.md").read_text("utf-8"), re.M
    )
    return [float(cell.replace(",", "")) for cell in line.split("|") if cell.strip()]


@pytest.mark.parametrize(
    ("label", "value", "summed"),
    [
        ("memory of one GPU, GiB", lambda p: p["memory"]["total"] / 2**30, False),
        ("one step, s", lambda p: p["step_seconds"], False),
        ("hours", lambda p: p["hours"], True),
        ("GPU hours", lambda p: p["hours"] * p["gpus"], True),
        ("at 3.75 $ a GPU hour, $", lambda p: p["cost"], True),
        ("one checkpoint, GB", lambda p: p["data"]["checkpoint"] / 1e9, False),
    ],
)
def test_the_table_is_the_plans(plan, label, value, summed):
    exact = [value(plan[name]) for name in PHASES]
    assert row(label) == pytest.approx([*exact, sum(exact)] if summed else exact, rel=0.005, abs=0.05)


def test_the_price_is_the_one_that_is_named(plan):
    for name in PHASES:
        assert plan[name]["cost"] == pytest.approx(plan[name]["hours"] * 32 * 3.75)
        assert plan[name]["fits"] is True and plan[name]["gpus"] == 32


def test_the_stored_plan_is_not_of_another_model(plan):
    from xdub.config import load_recipe

    recipe = load_recipe("xdub-1b")
    for name in PHASES:
        assert plan[name]["steps"] == recipe.for_phase(name).steps
        assert plan[name]["settings"]["global_batch"] == recipe.for_phase(name).global_batch
