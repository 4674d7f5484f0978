"""`python -m perf scale` on small sets: all parts run, and the numbers fit the bounds."""

from __future__ import annotations

from pathlib import Path

from perf.system.scale import DRIVER_BYTES, PARTS, verdicts


def test_all_parts_run_on_a_small_set(tmp_path: Path) -> None:
    numbers = {name: part(tmp_path / "data", 200) for name, part in PARTS.items()}
    assert numbers["add"]["driver_bytes"] < DRIVER_BYTES
    assert set(numbers["add"]) | set(numbers["resume"]) | set(numbers["plan"]) >= {
        "add",
        "commit",
        "resume",
        "plan",
    }


def test_a_cost_that_grows_with_the_set_is_reported() -> None:
    def row(clips: int, commit: float) -> dict:
        seconds = {"add": 1.0, "commit": commit, "resume": 1.0, "plan": 1.0}
        bounds = {"open_seconds": 1.0, "peak_mb": 300.0, "driver_bytes_per_clip": 500.0}
        return {"clips": clips, "seconds_per_clip": seconds} | bounds

    assert verdicts([row(10, 1.0), row(1000, 1.2)])["flat"]
    growing = verdicts([row(10, 1.0), row(1000, 1.4)])
    assert not growing["flat"] and growing["growth"]["commit"] == 1.4 and growing["start"]
