"""A demo that takes seconds: every stage is real, the model has two layers, and the demo is killed three times."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from xdub.demo.journey import run_demo
from xdub.demo.learning_curve import measure_run, save
from xdub.demo.picture import draw
from xdub.demo.sizes import DemoPlan
from xdub.errors import UserError
from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder, RunFolder
from xdub.media import probe

SETTINGS = (
    "video.clip_frames=25",
    "model.hidden_size=48",
    "model.num_heads=2",
    "model.num_layers=2",
    "lora.rank=2",
    "train.steps=4",
    "train.global_batch=4",
    "train.micro_batch=4",
    "train.warmup=1",
    "train.checkpoint_every=1",
    "train.log_every=1",
    "train.num_threads=1",
    "phases.lip.steps=2",
    "phases.texture.steps=2",
    "pairs.sampler_steps=2",
    "dub.sampler_steps=2",
)
PLAN = DemoPlan(overrides=SETTINGS, clips=4, heldout=2, heldout_frames=27, silent=1, local=True)
FLAGS = {"seed": 3, "from_scratch": True}
KILLS = ("held-out", "editor", "dub editor")
"""Stages in which the demo is killed."""


def start(out: Path) -> subprocess.Popen:
    code = (
        "from xdub.runtime_env import prepare_environment; prepare_environment()\n"
        "from xdub.demo.sizes import DemoPlan; from xdub.demo.journey import run_demo\n"
        f"run_demo({str(out)!r}, plan=DemoPlan.from_dict({PLAN.to_dict()!r}), **{FLAGS!r})\n"
    )
    log = open(out.with_suffix(".log"), "a")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log, env=environment)


def record(out: Path) -> dict:
    path = out / "demo.json"
    return json.loads(path.read_text()) if path.is_file() else {"stages": {}}


def wait_for(process: subprocess.Popen, out: Path, stage: str) -> None:
    """Wait until the stage has written its first file, or the process ends."""
    first_files = {
        "held-out": out / "heldout" / "case00",
        "editor": PhaseFolder(out / "run", "editor").checkpoint(1),
        "dub editor": out / "dubbed" / "editor" / "case00.mp4",
    }
    deadline = time.monotonic() + 300
    while not first_files[stage].exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, out.with_suffix(".log").read_text()[-3000:]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """Folder of a demo that was killed in three stages and restarted each time, and its records at the kills."""
    out = tmp_path_factory.mktemp("demo") / "out"
    killed = []
    for stage in KILLS:
        process = start(out)
        wait_for(process, out, stage)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed.append(record(out))
    process = start(out)
    assert process.wait(timeout=400) == 0, out.with_suffix(".log").read_text()[-3000:]
    return out, killed


@pytest.fixture(scope="module")
def summary(finished: tuple[Path, list[dict]]) -> dict:
    return json.loads((finished[0] / "summary.json").read_text())


@pytest.mark.slow
def test_a_killed_demo_continues_and_repeats_no_finished_stage(finished: tuple[Path, list[dict]]) -> None:
    out, killed = finished
    last = record(out)
    for stage, before in zip(KILLS, killed, strict=True):
        assert not before["stages"].get(stage, {}).get("done"), f"{stage} was over before it was killed"
        for name, entry in before["stages"].items():
            if entry["done"]:
                assert last["stages"][name] == entry, "neither time nor result changed"
    assert all(entry["done"] for entry in last["stages"].values())


@pytest.mark.slow
def test_killed_training_continues_from_its_checkpoint(finished: tuple[Path, list[dict]]) -> None:
    records = list(read_lines(PhaseFolder(finished[0] / "run", "editor").steps))
    assert [r["step"] for r in records] == [1, 2, 3, 4]
    assert records[0]["attempt"] == 1 and records[-1]["attempt"] == 2


@pytest.mark.slow
def test_the_summary_has_every_promised_field(summary: dict) -> None:
    model = {"opening_corr", "leak_corr", "lip_psnr", "outside_psnr", "raw_outside_psnr", "silence_opening"}
    for name in ("generator", "editor"):
        assert set(summary[name]) == model
        assert all(isinstance(value, float) for value in summary[name].values())
    assert summary["seed"] == 3 and summary["warm_start"] is False and 0.1 < summary["peak_gb"] < 8
    assert summary["versions"]["xdub"] and summary["hardware"]["cores"] >= 1
    assert set(summary["seconds"]) >= {"render", "generator", "pairs", "editor", "lip", "texture", "evaluate"}
    # The readout is sound even when the model of this test is not.
    assert summary["truth"] > 0.9 and -1 <= summary["editor"]["opening_corr"] <= 1
    assert summary["editor"]["outside_psnr"] > 30


@pytest.mark.slow
def test_every_file_at_the_end_of_the_demo_exists_and_opens(finished: tuple[Path, list[dict]]) -> None:
    out, _ = finished
    info = probe(out / "dubbed.mp4")
    assert (info.width, info.height) == (256, 256) and info.has_audio
    html = (out / "report.html").read_text()
    assert html.count("data:image/png") == 2 * 2 * 4 and html.count("data:video/mp4") == 3
    assert "Held-out clip 2" in html and "mlflow ui" in html and not re.search(r'src="(?!data:)', html)
    assert RunFolder(out).database.stat().st_size > 100_000
    assert not list(out.rglob(".*.tmp*")), "no unfinished file remains"


@pytest.mark.slow
def test_a_finished_demo_shows_its_figures_again_and_refuses_other_flags(
    finished: tuple[Path, list[dict]], summary: dict
) -> None:
    out, _ = finished
    again = run_demo(out, plan=PLAN, **FLAGS)
    assert again["editor"] == summary["editor"] and again["seconds"] == summary["seconds"]
    with pytest.raises(UserError, match=r"seed=3 \(now 4\)"):
        run_demo(out, plan=PLAN, seed=4, from_scratch=True)


@pytest.mark.slow
def test_the_learning_curve_reads_the_checkpoints_that_a_demo_kept(
    finished: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    out, _ = finished
    points = measure_run(out, cases=1)
    assert [(p.model, p.step) for p in points] == [(m, s) for m in ("generator", "editor") for s in (3, 4)]
    assert all(-1 <= p.figures["opening_corr"] <= 1 for p in points)
    minutes = [p.journey_minutes for p in points]
    assert minutes == sorted(minutes) and points[0].minutes > 0
    save(points, out, tmp_path)
    result = json.loads((tmp_path / "learning_curve.json").read_text())
    assert len(result["points"]) == 4 and result["flags"]["from_scratch"] is True
    assert (tmp_path / "learning_curve.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_readme_picture_is_drawn_from_a_finished_demo_only(
    finished: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    draw(finished[0], tmp_path / "demo.png", [0, 1])
    assert cv2.imread(str(tmp_path / "demo.png")).std() > 20
    with pytest.raises(UserError, match="not a finished demo"):
        draw(tmp_path, tmp_path / "other.png", [0])
