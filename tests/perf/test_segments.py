"""`python -m perf segments`: the same heads in both ways, and figures that are what they are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perf.__main__ import main
from perf.sampler import segments
from xdub.config import load_recipe
from xdub.dub.testing import small_recipe, write_random_bundle


def _row(way: str, seed: int, level: float, fall: float) -> dict:
    identity = [level - fall * n / 39 for n in range(40)]
    return {
        "way": way, "seed": seed, "seconds": 1.0,
        "identity": identity, "psnr": [30.0 + seed] * 40, "sync": level, "seam": 1.0 + fall,
    }  # fmt: skip


MEASURED = [
    _row(way, seed, level + 0.01 * seed, fall)
    for way, level, fall in ((segments.TRUTH, 0.98, 0.0), ("short", 0.9, 0.0), ("long", 0.8, 0.39))
    for seed in (0, 1)
    for _ in range(2)
]


def test_figures_are_means_over_clips_and_spreads_over_seeds() -> None:
    result = segments.summarise(MEASURED)
    assert list(result["table"]) == [segments.TRUTH, "short", "long"]
    assert result["table"]["short"]["identity"] == [pytest.approx(0.905), pytest.approx(0.00707)]
    assert result["table"]["long"]["drift"] == [pytest.approx(-0.3), 0.0]  # 0.01 a frame, 30 frames apart
    assert result["short_minus_long"]["sync"] == [pytest.approx(0.1), pytest.approx(0, abs=1e-9)]
    assert [len(curve) for curve in result["by_frame"]["long"]["identity"]] == [40, 40]


def test_the_picture_shows_every_way_and_where_segments_meet() -> None:
    identity, psnr = segments.figure(segments.summarise(MEASURED), load_recipe("tiny")).axes
    assert [len(axes.lines) for axes in (identity, psnr)] == [3 + 1, 2 + 1]  # 40 frames have one joint


@pytest.mark.slow
def test_any_model_folder_is_measured_and_written_with_its_picture(tmp_path: Path, capsys) -> None:
    write_random_bundle(tmp_path, small_recipe("pairs.sampler_steps=1"), experts=False)
    result = tmp_path / "segments.json"
    options = ["--frames", "29", "--long", "29", "--heads", "1", "--seeds", "0"]
    assert main(["segments", "--model", str(tmp_path), *options, "--json", str(result)]) == 0
    written = json.loads(result.read_text())
    truth, short, long = written["table"].values()
    assert truth["identity"][0] > max(short["identity"][0], long["identity"][0])
    assert truth["sync"][0] > 0.8
    assert "| one pass of 29 |" in capsys.readouterr().out
    assert result.with_suffix(".png").is_file()
