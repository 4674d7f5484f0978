"""`xdub plan` prints tables and writes JSON, and refuses a run that cannot be planned in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xdub.cli import app
from xdub.cli.errors import run_app
from xdub.plan import random_start

SMALL = [
    "--recipe",
    "tiny",
    "--gpus",
    "2",
    "--gpu",
    "rtx-4090",
    "--phase",
    "editor",
    "--set",
    "train.micro_batch=8",
]


def test_a_plan_is_printed_and_written(tmp_path: Path, capsys):
    path = tmp_path / "plan.json"
    assert run_app(app, ["plan", *SMALL, "--price", "0.5", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    for words in ("2 x rtx-4090", "ASSUMED 40% of peak", "optimizer", "3D attention", "step, s", "cost, $"):
        assert words in printed
    editor = json.loads(path.read_text())["phases"]["editor"]
    parts = {name: value for name, value in editor["memory"].items() if name != "total"}
    assert sum(parts.values()) == pytest.approx(editor["memory"]["total"])
    assert editor["settings"]["micro_batch"] == 8
    assert editor["fits"] is True


def test_a_plan_of_all_phases_has_pairs_and_dubbing_and_warns_about_the_generator_alone(
    tmp_path: Path, capsys, monkeypatch
):
    path = tmp_path / "plan.json"
    monkeypatch.setattr(random_start, "LARGE", 1)
    whole = ["--recipe", "tiny", "--gpus", "2", "--gpu", "h200", "--hours", "3", "--json", str(path)]
    whole += ["--set", "model.num_layers=1", "--set", "train.lr=1e-5"]
    assert run_app(app, ["plan", *whole]) == 0
    printed, errors = capsys.readouterr()
    warnings = [line for line in errors.splitlines() if "warning" in line]
    assert len(warnings) == 1 and warnings[0].startswith("xdub: warning: generator:")
    for words in ("pairs and dubbing", "evaluations of the model", "GPUs to finish in a day", "codec decode"):
        assert words in printed
    sampling = json.loads(path.read_text())["sampling"]
    assert [plan["hours_of_video"] for plan in sampling.values()] == [3.0, 3.0]
    assert sampling["pairs"]["evaluations"] == 4 and sampling["dubbing"]["evaluations"] == 12


def test_fit_prints_the_settings_to_pass_to_train(capsys):
    assert run_app(app, ["plan", *SMALL, "--fit"]) == 0
    printed = capsys.readouterr().out
    assert "editor: --set train.workers=2 --set phases.editor.micro_batch=" in printed
    assert "--set phases.editor.zero_stage=" in printed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gpu", "v100"], "unknown GPU 'v100': use --gpu with one of a100-40gb, a100-80gb"),
        ([], "no GPU is named: use --gpu with one of"),
        (["--gpu", "h200", "--gpus", "0"], "--gpus 0"),
        (
            ["--gpu", "h200", "--phase", "editor", "--generator", "x"],
            "--generator x: plans pairs, and --phase",
        ),
        (["--gpu", "h200", "--gpus", "7"], "train.global_batch=16 (phase generator) is not divisible"),
        (["--gpu", "h200", "--efficiency", "1.5"], "--efficiency 1.5: use a share of the peak"),
        (["--gpu", "h200", "--price", "-1"], "--price -1"),
        (["--gpu", "h200", "--hours", "0"], "--hours 0: use hours of video"),
        (["--gpu", "h200", "--memory-gb", "0"], "--memory-gb 0 must be a positive number"),
        (["--gpu", "h200", "--set", "train.activation_checkpointing=true"], "none, full, attention"),
        (["--gpu", "h200", "--fit", "--memory-gb", "0.5"], "phase generator does not fit"),
    ],
)
def test_a_run_that_cannot_be_planned_is_refused_in_one_line(options, words, capsys):
    arguments = ["plan", "--recipe", "tiny", *options]
    arguments += [] if "--gpus" in options else ["--gpus", "1"]
    assert run_app(app, arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_data_set_gives_the_true_size_of_its_records(tmp_path: Path, capsys):
    from xdub.data.shards import ShardWriter
    from xdub.data.testing import make_clip
    from xdub.files.storage import locate

    def copy_folder(source: Path, target: str) -> None:
        for file in filter(Path.is_file, source.rglob("*")):
            (locate(target) / str(file.relative_to(source))).upload(file)

    with ShardWriter(tmp_path / "ds", rows_per_shard=2) as writer:
        for seed in range(3):
            writer.add(make_clip(seed, num_frames=13, size=32, pair=True))
    path = tmp_path / "plan.json"
    assert run_app(app, ["plan", *SMALL, "--data", str(tmp_path / "ds"), "--json", str(path)]) == 0
    stored = sum(file.stat().st_size for file in (tmp_path / "ds").glob("*.parquet"))
    facts = json.loads(path.read_text())["phases"]["editor"]["data"]
    assert facts["source"] == "manifest"
    assert facts["frame_bytes"] == pytest.approx(stored / 39)
    copy_folder(tmp_path / "ds", "memory://plan/ds")
    assert run_app(app, ["plan", *SMALL, "--data", "memory://plan/ds", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["phases"]["editor"]["data"] == facts
    assert run_app(app, ["plan", *SMALL, "--data", str(tmp_path / "gone")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_syncnet_is_not_planned(capsys):
    assert (
        run_app(app, ["plan", "--recipe", "tiny", "--gpus", "1", "--gpu", "h200", "--phase", "syncnet"]) == 2
    )
    assert "--phase syncnet: only phases of the recipe's model are planned" in capsys.readouterr().err
