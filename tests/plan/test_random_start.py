"""A large network that starts from random weights at a rate for fine-tuning is warned about, in one line and once."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdub.config import load_recipe
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.files.run_folder import RunFolder
from xdub.plan import random_start
from xdub.plan.random_start import random_start_warning
from xdub.train.run import train_phase
from xdub.train.supervise.preflight import warn_random_start


def test_the_warning_names_both_options_and_the_rate():
    warning = random_start_warning(load_recipe("xdub-1b"), "generator")
    assert warning is not None and "\n" not in warning
    for words in ("1.07 billion weights", "lr=1e-05", "--init-from", "--init)", "phases.generator.lr=0.0001"):
        assert words in warning


@pytest.mark.parametrize(
    ("phase", "settings"),
    [
        ("generator", ["train.init_from=weights"]),
        ("generator", ["train.lr=1e-4"]),
        ("lip", []),
        ("generator", ["model.num_layers=2"]),
    ],
)
def test_trained_weights_a_higher_rate_an_adapter_or_a_smaller_model_need_no_warning(phase, settings):
    assert random_start_warning(load_recipe("xdub-1b", settings), phase) is None


@pytest.mark.parametrize("name", ["tiny", "mini", "small"])
def test_the_smaller_recipes_need_no_warning(name):
    recipe = load_recipe(name)
    assert [random_start_warning(recipe, phase) for phase in recipe.phase_names] == [None] * 4


def test_training_warns_once_and_not_again_when_it_continues(tmp_path: Path, monkeypatch, capsys):
    with ShardWriter(tmp_path / "clips") as writer:
        for seed in range(2):
            writer.add(make_clip(seed, num_frames=13, size=64))
    settings = ["model.hidden_size=48", "model.num_layers=1", "phases.generator.window=13", "train.lr=1e-5"]
    settings += ["train.global_batch=2", "train.num_threads=1", "train.steps=1"]
    monkeypatch.setattr(random_start, "LARGE", 1)
    recipe = load_recipe("tiny", settings)
    train_phase(
        "generator", recipe, tmp_path / "clips", tmp_path / "run", local=True, progress=lambda _: None
    )
    assert capsys.readouterr().err.count("start at random") == 1
    warn_random_start(RunFolder(tmp_path / "run").phase("generator"), recipe, None)
    assert not capsys.readouterr().err
