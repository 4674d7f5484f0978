"""`xdub eval score --json` prints JSON that every parser reads."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from xdub.cli import app
from xdub.evaluate import score


def test_figures_that_json_cannot_express_are_null(tmp_path, monkeypatch):
    """A correlation over one frame is NaN, the PSNR of equal pictures infinite."""
    figures = {"psnr": float("inf"), "lip_psnr": 30.0, "opening_corr": float("nan"), "leak_corr": None}
    result = score.Score(frames=1, faces=1.0, figures=figures)
    monkeypatch.setattr(score, "score", lambda *_, **__: result)
    video = tmp_path / "v.mp4"
    video.touch()
    done = CliRunner().invoke(
        app, ["eval", "score", "--video", str(video), "--reference", str(video), "--json"]
    )
    assert done.exit_code == 0, done.output

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    printed = json.loads(done.stdout.strip().splitlines()[-1], parse_constant=refuse)
    assert printed["psnr"] is None and printed["opening_corr"] is None and printed["lip_psnr"] == 30.0
