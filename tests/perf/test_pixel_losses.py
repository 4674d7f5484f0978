"""`python -m perf pixel_losses` on a narrow VAE."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perf.__main__ import main
from perf.step import pixel_losses


def test_rows_of_both_ways_hold_measured_and_planned_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    narrow = dict(base_dim=8, num_res_blocks=1, dim_mult=[1, 1, 1, 1])
    monkeypatch.setitem(pixel_losses.KINDS, "wan", narrow)
    out = tmp_path / "rows.json"
    for way in ("checkpointed", "plain"):
        arguments = ["--size", "32", "--start", "0", "--threads", "1", "--way", way, "--out", str(out)]
        assert main(["pixel_losses", *arguments]) == 0
    checkpointed, plain = json.loads(out.read_text())["rows"]
    assert checkpointed["peak_bytes"] < 0.75 * plain["peak_bytes"]
    assert checkpointed["planned_at_512_bytes"] == pytest.approx(
        256 * checkpointed["planned_bytes"], rel=1e-6
    )
    assert "--way plain" in plain["command"] and plain["environment"]["cores"] >= 1
