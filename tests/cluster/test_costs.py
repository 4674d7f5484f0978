"""Tests that the costs in the documents are those of the stored plan, and that the planner still computes them."""

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


@pytest.fixture(scope="module")
def sampling() -> dict:
    return json.loads((ROOT / "docs/results/plan_cluster.json").read_text("utf-8"))["sampling"]


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


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("memory for sampling, GiB", lambda p: p["memory"]["total"] / 2**30),
        ("one window on one GPU, s", lambda p: p["window_seconds"]),
        ("PFLOP of one window", lambda p: sum(p["window_flops"].values()) / 1e15),
        ("hours on 32 GPUs", lambda p: p["hours"]),
        ("GPU hours of sampling", lambda p: p["gpu_hours"]),
        ("sampling at 3.75 $, $", lambda p: p["cost"]),
        ("GPUs to finish in a day", lambda p: p["gpus_for_a_day"]),
    ],
)
def test_the_table_of_pairs_and_dubs_states_the_figures_of_the_plan(sampling, label, value):
    exact = [value(sampling[name]) for name in ("pairs", "dubbing")]
    assert row(label) == pytest.approx(exact, rel=0.005, abs=0.05)


def test_the_planner_computes_the_stored_plan(plan, sampling):
    """Two blocks of the network are compared per phase; the whole plan takes a minute."""
    from xdub.config import load_recipe
    from xdub.plan.flops import step_parts
    from xdub.plan.gpus import known_gpu
    from xdub.plan.loss_networks import pixel_loss_bytes
    from xdub.plan.sampling_plan import plan_sampling

    recipe, gpu = load_recipe("xdub-1b"), known_gpu("a100-80gb")
    parts = step_parts(recipe, "lip")
    assert plan["lip"]["step_flops"] == pytest.approx(parts)
    assert plan["lip"]["memory"]["activations_working"] == pixel_loss_bytes(recipe, "lip", 1)
    for fresh in plan_sampling(recipe, gpu, gpus=32, efficiency=0.4, price=3.75):
        stored = sampling[fresh.name]
        assert stored["window_flops"] == pytest.approx(fresh.window_flops)
        assert stored["gpu_hours"] == pytest.approx(fresh.gpu_hours)
        assert stored["memory"]["total"] == pytest.approx(fresh.memory.total)


def test_the_pages_state_the_sums_of_the_plan(plan, sampling):
    hours = sum(plan[name]["hours"] for name in PHASES)
    total = 32 * (hours + sampling["pairs"]["hours"])
    most = max(p["memory"]["total"] for p in (*plan.values(), sampling["pairs"])) / 2**30
    page = " ".join((ROOT / "docs/cluster.md").read_text("utf-8").split())
    words = f"{hours:.1f} hours of training and {sampling['pairs']['hours']:.1f} hours of pair making, {total:,.0f} GPU"
    assert words in page and f"{most:.1f} GiB of a GPU's memory at most" in page
    assert f"{hours:.1f} hours of training" in " ".join((ROOT / "README.md").read_text("utf-8").split())


def test_the_example_of_the_plan_shows_the_stored_figures(plan, sampling):
    page = (ROOT / "docs/plan.md").read_text("utf-8")

    def cells(label: str, number: int = 0) -> list[str]:
        lines = [line for line in page.splitlines() if line.startswith(f"│ {label} ")]
        return [cell.strip() for cell in lines[number].split("│")[2:-1]]

    assert cells("total") == [f"{plan[name]['memory']['total'] / 2**30:.1f}" for name in PHASES]
    assert cells("total", 1) == [f"{sum(plan[name]['step_flops'].values()) / 1e12:,.1f}" for name in PHASES]
    assert cells("step, s") == [f"{plan[name]['step_seconds']:.2f}" for name in PHASES]
    names = ("pairs", "dubbing")
    assert cells("GPU hours", 1) == [f"{sampling[name]['gpu_hours']:,.0f}" for name in names]
    assert cells("total", 2) == [f"{sampling[name]['memory']['total'] / 2**30:.1f}" for name in names]
