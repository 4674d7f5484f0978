"""`python -m perf unchanged`: digests depend on the numbers alone, and every difference is reported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from perf import unchanged
from perf.__main__ import main
from perf.unchanged_digests import data_set_things, thing, training_things
from perf.unchanged_side import Side, export_tree


def write_training(folder: Path, losses: list[float], weight: float = 1.0, seconds: float = 0.5) -> Path:
    """Write the files of a phase that are compared."""
    (folder / "export").mkdir(parents=True)
    (folder / "samples").mkdir()
    steps = [{"step": n, "loss": loss.hex(), "sample_ids": ["a"]} for n, loss in enumerate(losses, 1)]
    values = {"lr": 0.1, "perf/step_seconds": seconds}
    journal = [{"kind": "metrics", "step": 1, "values": values}, {"kind": "status", "value": "FINISHED"}]
    for name, lines in (("steps", steps), ("journal", journal)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_file({"w": np.array([weight, 2.0], np.float32)}, folder / "export" / "model.safetensors")
    (folder / "samples" / "step00000010.png").write_bytes(b"picture")
    return folder


def write_data_set(folder: Path, sound: bytes = b"abc", worker: str = "one") -> Path:
    """Write a shard and a ledger of one row each."""
    folder.mkdir()
    clip = {"clip_id": "a", "frames": b"mp4", "audio": {"data": sound, "shape": [3]}}
    pq.write_table(pa.Table.from_pylist([clip]), folder / "shard-00000.parquet")
    row = {
        "input": "i",
        "clip_id": "a",
        "status": "kept",
        "worker": worker,
        "seconds": 1.0,
        "message": worker,
    }
    pq.write_table(pa.Table.from_pylist([row]), folder / "ledger.parquet")
    return folder


def compared(before: dict, after: dict) -> dict[str, dict]:
    """Return the rows of a comparison by the name of the result."""
    rows = unchanged.compare("part", {"things": before}, {"things": after})
    return {row["thing"].removeprefix("part: "): row for row in rows}


def test_trainings_with_the_same_numbers_are_identical_whatever_their_speed(tmp_path: Path) -> None:
    before = training_things(write_training(tmp_path / "a", [0.5, 0.25], seconds=0.5))
    after = training_things(write_training(tmp_path / "b", [0.5, 0.25], seconds=0.9))
    rows = compared(before, after)
    assert set(rows) == {"losses", "samples", "metrics", "weights", "strips"}
    assert all(row["identical"] and row["difference"] is None for row in rows.values())


def test_losses_that_differ_are_reported_with_their_largest_relative_difference(tmp_path: Path) -> None:
    before = training_things(write_training(tmp_path / "a", [0.5, 0.5, 1.0]))
    after = training_things(write_training(tmp_path / "b", [0.5, 0.51, 1.001], weight=1.5))
    rows = compared(before, after)
    assert not rows["losses"]["identical"] and rows["losses"]["decides"]
    assert rows["losses"]["difference"] == "largest relative difference 2.0e-02, first at step 2"
    assert rows["weights"]["difference"] == "largest relative difference 2.5e-01"
    assert rows["samples"]["identical"] and rows["metrics"]["identical"]


def test_one_bit_of_a_loss_is_a_difference() -> None:
    assert unchanged.loss_difference([(1.0).hex()], [np.nextafter(1.0, 2.0).item().hex()]).startswith(
        "largest relative difference 2.2e-16"
    )
    assert unchanged.loss_difference(["nan", "0x1p0"], ["nan", "0x1p1"]).endswith("first at step 2")
    assert unchanged.loss_difference(["0x1p0"], []) == "1 and 0 steps"


def test_the_fields_of_a_shard_that_differ_are_named_and_a_ledgers_worker_is_ignored(tmp_path: Path) -> None:
    before = data_set_things(write_data_set(tmp_path / "a"))
    after = data_set_things(write_data_set(tmp_path / "b", sound=b"abd", worker="two"))
    rows = compared(before, after)
    assert rows["rows"]["difference"] == "1 of 3 differ: audio"
    assert not rows["shards"]["identical"] and rows["ledger"]["identical"]
    assert not rows["ledger messages"]["identical"] and not rows["ledger messages"]["decides"]


def test_frames_are_compared_by_psnr() -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    other = frames + np.uint8(255)
    assert unchanged.frames_difference(frames, other) == "PSNR 0.0 dB"
    assert "shapes" in unchanged.frames_difference(frames, other[:1])


def test_a_command_that_fails_after_the_change_is_a_difference() -> None:
    rows = compared({"rows": thing("x")}, {"failure": thing("y", error="xdub render ended with 1")})
    assert rows["rows"]["difference"] == "only before" and not rows["rows"]["identical"]
    assert rows["failure"]["difference"] == "xdub render ended with 1" and rows["failure"]["decides"]


def fake_part(side: Side, name: str) -> dict:
    """Stand in for the commands of a side: the losses differ in the second side's editor."""
    changed = name == "editor" and side.folder.name == "after"
    losses = [(0.75 if changed else 0.5).hex()]
    return {"losses": thing(losses[0], losses=losses)}


@pytest.mark.parametrize(("phase", "code"), [("generator", 0), ("editor", 1)])
def test_the_exit_code_reports_a_difference_and_the_side_before_is_kept(
    phase: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(unchanged, "resolve", lambda name: name * 40)
    monkeypatch.setattr("perf.unchanged_side.export_tree", lambda commit, folder: folder.mkdir())
    monkeypatch.setattr(Side, "_part", fake_part)
    options = ["--before", "a", "--after", "b", "--keep", str(tmp_path / "keep"), "--phases", phase]
    runs = []
    for number in range(2):
        path = tmp_path / f"{number}.json"
        assert main(["unchanged", *options, "--json", str(path)]) == code
        runs.append(capsys.readouterr())
    result = json.loads(path.read_text())
    assert result["identical"] == (code == 0) and result["commits"]["before"] == "a" * 40
    assert f"aaaaaaaa: {phase}" in runs[0].err and f"aaaaaaaa: {phase}" not in runs[1].err
    assert all(f"bbbbbbbb: {phase}" in run.err for run in runs)
    assert f"{5 - code} of 5 results are identical" in runs[0].out


def test_the_tree_of_a_commit_is_exported_without_its_history(tmp_path: Path) -> None:
    export_tree("HEAD", tmp_path / "tree")
    assert (tmp_path / "tree" / "xdub" / "__init__.py").is_file()
    assert not (tmp_path / "tree" / ".git").exists()
