"""`xdub eval score --json` prints JSON that every parser reads."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from xdub.cli import app
from xdub.evaluate import score


def test_figures_that_json_does_not_know_are_null(tmp_path, monkeypatch):
    """A correlation over one frame is NaN, the PSNR of equal pictures infinite."""
    figures = score.Score(
        frames=1,
        faces=1.0,
        psnr=float("inf"),
        lip_psnr=30.0,
        opening_corr=float("nan"),
        opening_corr_readout=0.5,
    )
    monkeypatch.setattr(score, "score", lambda *_, **__: figures)
    video = tmp_path / "v.mp4"
    video.touch()
    done = CliRunner().invoke(
        app, ["eval", "score", "--video", str(video), "--reference", str(video), "--json"]
    )
    assert done.exit_code == 0, done.output

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    told = json.loads(done.stdout.strip().splitlines()[-1], parse_constant=refuse)
    assert told["psnr"] is None and told["opening_corr"] is None and told["lip_psnr"] == 30.0
