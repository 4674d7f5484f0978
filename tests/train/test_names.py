"""A run with a difficult name keeps everything in its folder, also after it was moved. `perf names` tries all verbs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from perf.system.drawn_names import LONGEST, changes, draw_names, listing
from xdub.cli import app
from xdub.cli.errors import run_app
from xdub.errors import UserError
from xdub.files.run_folder import RunFolder
from xdub.tracking.read import read_runs
from xdub.train.run import train_phase

NAMES = ["-q?a#b %41%s", "file:[red]:smile:{0}'\"\\\n", "漢🎬" * 27]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_with_a_difficult_name_changes_nothing_outside_of_its_folder(
    name: str, small, clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path(name).mkdir()
    Path(name, "clips").symlink_to(clips)
    before = listing(tmp_path, tmp_path / name)
    arguments = {"local": True, "progress": lambda _: None}
    few = small("train.steps=2", "train.log_every=10", "train.sample_every=2")
    train_phase("generator", few, f"{name}/clips", f"{name}/run", **arguments)
    Path(name, "run").rename(Path(name, name))
    more = small("train.steps=3", "train.log_every=10")
    train_phase("generator", more, f"{name}/clips", f"{name}/{name}", resume=True, **arguments)
    assert (
        run_app(app, ["runs", "compare", f"--out={name}/c.html", "--", f"{name}/{name}", f"{name}/{name}"])
        == 0
    )
    (tracked,) = read_runs([f"{name}/{name}"])
    assert list(tracked.curves["loss/flow"][0]) == [2, 3] and tracked.status == "FINISHED"
    assert list(RunFolder(Path(name, name)).artifacts.rglob("step00000002.png"))
    assert not Path(name, "run").exists()
    assert changes(before, listing(tmp_path, tmp_path / name)) == []
    output = capsys.readouterr()
    assert output.err == ""
    assert f"Plots: {name}/c.html, {name}/c.png" in output.out


def test_a_run_folder_whose_name_is_not_text_is_refused_before_it_exists(
    small, clips, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="not UTF-8 text; rename"):
        train_phase("generator", small(), clips, tmp_path / os.fsdecode(b"caf\xe9"), local=True)
    assert not list(tmp_path.iterdir())


def test_drawn_names_are_different_and_of_every_kind() -> None:
    names = draw_names(100, seed=0)
    assert names == draw_names(100, seed=0) != draw_names(100, seed=1)
    assert len(set(names)) == 100 and not any("/" in name or "\0" in name for name in names)
    assert max(len(name.encode()) for name in names) <= LONGEST
    assert sum(len(name.encode()) > LONGEST - 4 for name in names) >= 10
    assert sum(name.startswith("-") for name in names) >= 10
    for piece in " '\"?#%:[]{}\\\n漢🎬":
        assert any(piece in name for name in names), piece


def test_a_new_a_removed_and_a_changed_file_are_reported(tmp_path: Path) -> None:
    for name in ("kept", "removed", "changed", "own"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("1")
    before = listing(tmp_path, tmp_path / "own")
    (tmp_path / "own" / "new").write_text("2")
    (tmp_path / "new").write_text("2")
    (tmp_path / "changed" / "file").write_text("12")
    (tmp_path / "removed" / "file").unlink()
    lines = changes(before, listing(tmp_path, tmp_path / "own"))
    assert [
        (line.split(":")[0], Path(json.loads(line.split(": ")[1].replace("'", '"'))).name) for line in lines
    ] == [
        ("changed", "file"),
        ("gone", "file"),
        ("new", "new"),
    ]
