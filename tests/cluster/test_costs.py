"""Tests that the costs in cluster/README.md are those of the stored plan, whose steps are those of the recipe."""

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
    """Read the numbers of one row of the table."""
    readme = (ROOT / "cluster/README.md").read_text("utf-8")
    (line,) = re.findall(rf"^\| {re.escape(label)} \|(.+)\|$", readme, re.M)
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
def test_the_table_states_the_figures_of_the_plan(plan, label, value, summed):
    exact = [value(plan[name]) for name in PHASES]
    assert row(label) == pytest.approx([*exact, sum(exact)] if summed else exact, rel=0.005, abs=0.05)


def test_costs_are_those_of_32_gpus_at_3_75_dollars_an_hour(plan):
    for name in PHASES:
        assert plan[name]["cost"] == pytest.approx(plan[name]["hours"] * 32 * 3.75)
        assert plan[name]["fits"] is True and plan[name]["gpus"] == 32


def test_the_stored_plan_has_the_steps_and_batches_of_the_recipe(plan):
    from xdub.config import load_recipe

    recipe = load_recipe("xdub-1b")
    for name in PHASES:
        assert plan[name]["steps"] == recipe.for_phase(name).steps
        assert plan[name]["settings"]["global_batch"] == recipe.for_phase(name).global_batch
