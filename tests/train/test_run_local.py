"""`train_phase` in this process ends with weights, and an interrupted run ends with the same weights."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from xdub.errors import UserError
from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder, RunFolder
from xdub.tracking.read import read_runs
from xdub.tracking.runs import read_state
from xdub.train import rank
from xdub.train.run import RunResult, train_phase


def quiet(progress) -> None:
    """Show no progress."""


@pytest.fixture(scope="module")
def whole(small, clips, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Run six steps without interruption."""
    out = tmp_path_factory.mktemp("whole")
    return train_phase("generator", small(), clips, out, local=True, progress=quiet)


def curve(folder: PhaseFolder) -> list[tuple]:
    return [(r["step"], r["loss"], r["sample_ids"]) for r in read_lines(folder.steps)]


def metrics(folder: PhaseFolder) -> list[tuple]:
    """Return the metrics of the journal without those of time."""
    records = [r for r in read_lines(folder.journal) if r["kind"] == "metrics"]
    return [(r["step"], {k: v for k, v in r["values"].items() if "perf/" not in k}) for r in records]


def test_a_run_ends_with_weights_records_and_a_tracked_run(whole: RunResult) -> None:
    assert (whole.status, whole.step) == ("finished", 6)
    assert [step for step, *_ in curve(whole.folder)] == [1, 2, 3, 4, 5, 6]
    assert whole.export is not None
    config = json.loads((whole.export / "config.json").read_text())
    assert (config["phase"], config["kind"], config["step"], config["averaged"]) == (
        "generator",
        "model",
        6,
        True,
    )
    assert "precondition.std" in load_file(whole.export / "model.safetensors")
    assert sorted(p.name for p in whole.folder.checkpoints.iterdir()) == [
        "step00000004",
        "step00000006",
    ]
    from mlflow import MlflowClient

    run = MlflowClient(read_state(whole.folder.run)["tracking_uri"]).get_run(whole.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.lr"] == "0.001"
    assert run.data.metrics["train/loss"] == metrics(whole.folder)[-1][1]["train/loss"]
    assert {"lr", "grad_norm", "perf/tokens_per_s", "perf/step_seconds", "perf/data_wait"} <= set(
        run.data.metrics
    )
    assert any(name.startswith("loss/flow/t_bin_") for name in run.data.metrics)


def interrupted(small, clips, out: Path, step: int, event: str, *overrides: str) -> RunResult | None:
    """Run until the sampler crashes or requests a stop after ``step`` steps; return None if the run raised."""

    def sampler(model, context):
        import numpy as np

        if event == "crash":
            raise RuntimeError("power cut")
        PhaseFolder(out, "generator").stop_request.touch()
        return np.zeros((2, 2, 3), np.uint8)

    recipe = small(f"train.sample_every={step}", *overrides)
    try:
        return train_phase("generator", recipe, clips, out, local=True, sampler=sampler, progress=quiet)
    except RuntimeError:
        return None


@pytest.mark.parametrize(("step", "event"), [(3, "crash"), (1, "crash"), (3, "stop")])
def test_an_interrupted_run_continues_with_the_same_steps_and_weights(
    step, event, small, clips, whole, tmp_path: Path
) -> None:
    first = interrupted(small, clips, tmp_path, step, event)
    if event == "stop":  # a stop takes effect after the step that follows the sample
        assert first is not None
        assert (first.status, first.step, first.export) == ("stopped", step + 1, None)
    ids = read_state(RunFolder(tmp_path))["phases"]
    last = train_phase("generator", small(), clips, tmp_path, resume=True, local=True, progress=quiet)
    assert curve(last.folder) == curve(whole.folder)
    assert metrics(last.folder) == metrics(whole.folder)
    assert {r["attempt"] for r in read_lines(last.folder.steps)} <= {1, 2}
    mine, theirs = (load_file(result.export / "model.safetensors") for result in (last, whole))
    assert all(mine[name].equal(theirs[name]) for name in theirs)
    assert read_state(RunFolder(tmp_path))["phases"] == ids


def test_the_last_step_is_logged_at_a_stop_and_at_the_end_of_a_run(small, clips, tmp_path: Path) -> None:
    rare = small("train.log_every=100", "train.steps=3")
    whole = train_phase("generator", rare, clips, tmp_path / "whole", local=True, progress=quiet)
    interrupted(small, clips, tmp_path / "stopped", 1, "stop", "train.log_every=100", "train.steps=3")
    stopped = PhaseFolder(tmp_path / "stopped", "generator")
    assert [step for step, _ in metrics(stopped)] == [2]
    train_phase("generator", rare, clips, tmp_path / "stopped", resume=True, local=True, progress=quiet)
    (last,) = metrics(whole.folder)
    assert last[0] == 3 and last[1]["train/loss"] > 0
    assert metrics(stopped)[1:] == [last]
    (tracked,) = read_runs([str(tmp_path / "whole")])
    assert tracked.metrics["train/loss"] == last[1]["train/loss"]


def test_a_damaged_checkpoint_is_skipped(small, clips, whole, tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "generator")
    newest = PhaseFolder(tmp_path, "generator").checkpoint(6)
    damaged = next(newest.glob("rank*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    PhaseFolder(tmp_path, "generator").result.unlink()
    PhaseFolder(tmp_path, "generator").unfinished_checkpoint(8).mkdir()
    last = train_phase("generator", small(), clips, tmp_path, resume=True, local=True, progress=quiet)
    assert curve(last.folder) == curve(whole.folder)
    assert [r["attempt"] for r in read_lines(last.folder.steps)] == [1, 1, 1, 1, 2, 2]


def test_a_finished_run_returns_at_once_and_continues_to_more_steps(
    small, clips, whole, tmp_path: Path
) -> None:
    shutil.copytree(whole.folder.run.path, tmp_path, dirs_exist_ok=True)
    before = PhaseFolder(tmp_path, "generator").steps.read_bytes()
    same = train_phase("generator", small(), clips, tmp_path, resume=True, local=True, progress=quiet)
    assert (same.status, same.attempts) == ("finished", 0)
    assert PhaseFolder(tmp_path, "generator").steps.read_bytes() == before
    more = train_phase(
        "generator", small("train.steps=8"), clips, tmp_path, resume=True, local=True, progress=quiet
    )
    assert more.step == 8
    assert curve(more.folder)[:6] == curve(whole.folder)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "add --resume"),
    ],
)
def test_a_run_that_cannot_be_started_ends_with_the_reason(overrides, message, small, clips, whole) -> None:
    with pytest.raises(UserError, match=message):
        train_phase("generator", small(*overrides), clips, whole.folder.run.path, local=True, progress=quiet)


def test_a_run_with_fewer_clips_than_a_batch_prints_a_warning(small, clips, tmp_path: Path, capsys) -> None:
    recipe = small("train.global_batch=16", "train.micro_batch=16", "train.steps=2")
    train_phase("generator", recipe, clips, tmp_path, local=True, progress=quiet)
    samples = [r["sample_ids"] for r in read_lines(PhaseFolder(tmp_path, "generator").steps)]
    assert [len(s) for s in samples] == [16, 16] and len(set(samples[0] + samples[1])) == 12
    assert "12 usable clips for batches of 16" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.seed=1", "seed=0, this run has 1"),
        ("train.global_batch=8", "global_batch=4, this run has 8"),
        ("model.num_layers=1", "does not fit|the network is another one|network="),
        ("train.ema=0", "ema"),
    ],
)
def test_a_resume_with_settings_of_another_run_is_refused(
    override, message, small, clips, whole, tmp_path
) -> None:
    shutil.copytree(whole.folder, tmp_path / "generator")
    recipe = small(override, "train.steps=8")
    with pytest.raises(UserError, match=message):
        train_phase("generator", recipe, clips, tmp_path, resume=True, local=True, progress=quiet)


def test_a_run_continues_in_another_zero_stage(small, clips, whole, tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "generator")
    shutil.rmtree(PhaseFolder(tmp_path, "generator").checkpoint(6))
    PhaseFolder(tmp_path, "generator").result.unlink()
    recipe = small("train.zero_stage=3")
    last = train_phase("generator", recipe, clips, tmp_path, resume=True, local=True, progress=quiet)
    for mine, theirs in zip(curve(last.folder), curve(whole.folder), strict=True):
        assert float.fromhex(mine[1]) == pytest.approx(float.fromhex(theirs[1]), rel=1e-6)


def test_two_processes_cannot_train_one_folder(small, clips, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "generator").mkdir()
    with PhaseFolder(tmp_path, "generator").lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="trained by another process"):
            train_phase("generator", small(), clips, tmp_path, local=True, progress=quiet)


def test_the_watchdog_sees_every_micro_batch_and_memory_is_no_disk(
    small, clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats, build = [], rank._build_trainer

    def counting(*args: Any, beat: Any, **options: Any) -> Any:
        return build(*args, beat=lambda: beats.append(1), **options)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(rank, "_build_trainer", counting)
    monkeypatch.setattr("xdub.train.engine.Engine.save", full)
    recipe = small("train.micro_batch=1", "train.steps=1")
    with pytest.raises(torch.OutOfMemoryError):
        train_phase("generator", recipe, clips, tmp_path, local=True, progress=quiet)
    # Four micro batches are three beats before the step's own.
    assert len(beats) == 4


def test_progress_is_reported_to_the_last_step(small, clips, tmp_path: Path) -> None:
    shown = []
    train_phase("generator", small(), clips, tmp_path, local=True, progress=shown.append)
    assert shown[-1].step == shown[-1].steps == 6
    assert math.isfinite(shown[-1].loss)
