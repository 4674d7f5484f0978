"""Sample strips show the same window at every step, and drawing them does not change training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder, RunFolder
from xdub.model.codec import load_codec
from xdub.train.networks import build_model
from xdub.train.phases.common import PhaseContext
from xdub.train.run import RunResult, train_phase
from xdub.train.show.strip_sampler import StripSampler
from xdub.train.state.export import write_export


def quiet(progress) -> None:
    """Show no progress."""


def run(phase: str, recipe, data: Path, out: Path, **options) -> tuple[RunResult, list[tuple], dict]:
    """Train, and return the result, the committed curve with the logged numbers, and the weights."""
    result = train_phase(phase, recipe, data, out, local=True, progress=quiet, **options)
    assert result.export is not None
    numbers = [
        (r["step"], {k: v for k, v in r["values"].items() if "perf/" not in k})
        for r in read_lines(result.folder.journal)
        if r["kind"] == "metrics"
    ]
    steps = [(r["step"], r["loss"], r["sample_ids"]) for r in read_lines(result.folder.steps)]
    return result, [*steps, *numbers], load_file(next(result.export.glob("*.safetensors")))


@pytest.mark.parametrize("phase", ["generator", "lip"])
def test_a_run_with_strips_trains_exactly_like_a_run_without(
    phase: str, small, clips, pairs, tmp_path: Path
) -> None:
    options, data = {}, clips
    if phase == "lip":
        model = build_model(small(), "editor", load_codec(small().codec), base=None, init_from=None)
        write_export(PhaseFolder(tmp_path, "editor").export, model.state_dict(), {"kind": "model"})
        options, data = {"base": PhaseFolder(tmp_path, "editor").export}, pairs
    _, plain, weights = run(phase, small(), data, tmp_path / "plain", **options)
    result, with_strips, same = run(
        phase, small("train.sample_every=2"), data, tmp_path / "strips", **options
    )
    assert with_strips == plain
    assert all(same[name].equal(weights[name]) for name in weights)
    strips = sorted(path.name for path in result.folder.samples.iterdir())
    assert strips == ["step00000002.png", "step00000004.png", "step00000006.png"]
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{RunFolder(tmp_path / 'strips').database}")
    assert len(client.list_artifacts(result.run_id, "samples")) == 3


def test_strips_show_the_same_moments_of_the_same_clip_in_every_run(small, clips) -> None:
    recipe = small("seed=7")
    codec = load_codec(recipe.codec)
    context = PhaseContext(phase=recipe.phase("generator"), seed=7, codec=codec)
    model = build_model(recipe, "generator", codec, base=None, init_from=None).eval()
    first, again, other = (
        StripSampler(each, "generator", [str(clips)])(model, context) for each in (recipe, recipe, small())
    )
    assert np.array_equal(first, again)
    assert np.array_equal(first, other)  # another seed of the run shows the same clip, too


def test_a_strip_is_a_picture_with_captions_and_three_rows(small, pairs, tmp_path: Path) -> None:
    recipe = small()
    codec = load_codec(recipe.codec)
    context = PhaseContext(phase=recipe.phase("editor"), seed=0, codec=codec)
    model = build_model(recipe, "editor", codec, base=None, init_from=None).eval()
    strip = StripSampler(recipe, "editor", [str(pairs)])(model, context)
    Image.fromarray(strip).save(tmp_path / "strip.png")
    height, width, _ = strip.shape
    assert 500 < height < 700 and 1000 < width < 1400
    assert (strip[:60, :300] < 100).any() and (strip[80:, :100] < 100).any()  # title, names of the rows
    paper = (strip == 255).all(-1).mean()
    assert paper < 0.3
