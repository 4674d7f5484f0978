"""`python -m perf sampler`: the same clips at every level, the recipe on the curve, a line through the sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perf.sampler import error_plot, quality, scaling, speed
from perf.sampler.heads import Head
from xdub.data.testing import make_clip
from xdub.dub.testing import small_recipe, write_random_bundle
from xdub.model.bundle import Bundle, load_bundle


@pytest.fixture(scope="module")
def heads() -> list[Head]:
    clips = [make_clip(seed, num_frames=29) for seed in range(4)]
    return [Head(*clips[:2]), Head(*clips[2:])]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    write_random_bundle(folder, small_recipe())
    return load_bundle(folder)


@pytest.mark.parametrize("model", ["generator", "editor"])
def test_every_level_samples_the_same_clips(bundle: Bundle, heads: list[Head], model: str) -> None:
    levels = speed.ladder([2], compiled=False)
    rows = speed.measure(bundle.recipe, bundle, model, heads, levels, repeats=2)
    assert [row["batch"] for row in rows] == [1, 1, 1, 2]
    assert all(row["largest_difference"] < 0.1 for row in rows)  # of 255
    assert rows[0]["times_faster"] == 1 and len(rows[0]["all_seconds"]) == 2
    assert "times faster than the first" in speed.table(rows)


def test_the_curve_is_of_the_same_clips_and_is_drawn(
    bundle: Bundle, heads: list[Head], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "EXACT", (3.0, "ab2", 4))
    steps = {"euler": [1, 2], "heun": [1, 2], "ab2": [1]}
    exact, *rows = quality.curve(bundle.recipe, bundle, heads, seeds=[0, 1], shifts=[2.0], steps_of=steps)
    assert exact["exact_psnr"] == 100 and exact["evaluations"] == 4
    assert [row["evaluations"] for row in rows] == [1, 2, 1, 3, 1]
    assert rows[0]["all_opening_corr"] == rows[2]["all_opening_corr"] == rows[4]["all_opening_corr"]
    assert len(rows[0]["all_opening_corr"]) == 4  # heads x seeds
    itself, other, *_ = quality.against(rows, rows[0])
    assert itself["opening_corr"] == 0 and other["lip_psnr"] != 0
    error_plot.draw(rows, exact, rows[0], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_a_level_has_what_the_ones_before_it_have() -> None:
    levels = speed.ladder([2, 8], compiled=True)
    assert [(x.cached, x.answered, x.batch, x.compiled) for x in levels] == [
        (False, False, 1, False),
        (True, False, 1, False),
        (True, True, 1, False),
        (True, True, 2, False),
        (True, True, 8, False),
        (True, True, 1, True),
        (True, True, 8, True),
    ]


def test_the_line_through_sizes_is_the_least_squares_one() -> None:
    x = [8, 16, 24, 32]
    exact = scaling.fit(x, [3 + 0.5 * n for n in x])
    assert exact == pytest.approx({"slope": 0.5, "intercept": 3.0, "r2": 1.0})
    noisy = scaling.fit(x, [1.0, 5.0, 2.0, 6.0])
    assert noisy["r2"] == pytest.approx(np.corrcoef(x, [1.0, 5.0, 2.0, 6.0])[0, 1] ** 2)
