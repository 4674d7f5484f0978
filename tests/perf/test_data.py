"""`python -m perf data`: the parts of a reader's work, and the arithmetic from there to cores and bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perf.__main__ import main
from perf.system import data
from xdub.config import load_recipe
from xdub.plan.latent_plan import window_bytes


def test_a_small_recipe_is_read_and_written_as_a_result(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "row.json"
    assert main(["data", "--recipe", "tiny", "--reads", "1", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert result["environment"]["cores"] > 0 and "commit" in result["environment"] and result["train"] == []
    generator, editor = result["reader"]
    assert (generator["videos"], editor["videos"]) == (1, 2)
    assert generator["clip"] == [45, 64, 64] and generator["encode_flops"] is None
    cached, _ = result["latent_reader"]
    assert cached["row_bytes"] > sum(window_bytes(load_recipe("tiny"), "generator")) * 0.99
    printed = capsys.readouterr().out
    assert "one core delivers" in printed and "tiny, editor, cached latents" in printed


def test_cores_and_bytes_follow_from_rates() -> None:
    sample = {"phase": "editor", "samples_per_s_core": 0.5, "row_bytes": 10_000_000, "batch_bytes": 2_000_000}
    need = data.needs(sample, load_recipe("xdub-1b"), gpus=32, step_seconds=64.0)  # 256 samples a step
    assert need["samples_per_s"] == 4.0 and need["cores_per_gpu"] == 0.25
    assert need["storage_bytes_per_s"] == 40e6 and need["to_gpu_bytes_per_s"] == 250_000


def test_the_models_flops_are_the_plans_figure_and_fall_with_the_window() -> None:
    recipe = load_recipe("xdub-1b")
    assert data.model_flops(recipe, "editor") == pytest.approx(0.8e15)
    assert data.model_flops(recipe, "generator") == pytest.approx(0.8e15 * (0.31 / 5 + 0.69 / 25))


def test_wans_encoder_is_counted_for_every_video_of_a_sample() -> None:
    recipe = load_recipe("xdub-1b")
    assert data.encode_flops(recipe, "editor") == pytest.approx(204e12, rel=0.01)
    assert data.encode_flops(load_recipe("tiny"), "editor") is None
