"""The examination of a recipe: every network and stage has a row, and a fault leaves the other rows alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from xdub.cli import app
from xdub.cli.errors import run_app
from xdub.config import load_recipe
from xdub.doctor.clips import drawn_clip, landmarks_of, write_clips
from xdub.doctor.examine import Sizes, examine
from xdub.doctor.rehearsal import experts_at, least_steps, plan_rehearsal
from xdub.doctor.rows import Examiner, NotRun
from xdub.doctor.stages import StageChecks
from xdub.encode import encode_latents
from xdub.errors import UserError
from xdub.miniature import write_miniature
from xdub.model.frozen_base import StoredLinear
from xdub.perception.mouth import mouth_opening
from xdub.train.engine import Engine


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The networks of the recipe mini, with another network in place of its SyncNet."""
    folder = tmp_path_factory.mktemp("doctor") / "weights"
    write_miniature(load_recipe("mini"), folder)
    shutil.copyfile(folder / "arcface.pth", folder / "syncnet_v2.model")
    return folder


def test_a_wrong_network_is_one_row_and_every_stage_without_it_still_runs(
    weights: Path, tmp_path: Path
) -> None:
    result = tmp_path / "doctor.json"
    arguments = ["doctor", "--recipe", "mini", "--set", f"weights={weights}", "--json", str(result)]
    arguments += ["--size", "32", "--frames", "9", "--set", "phases.editor.latents=cached"]
    assert run_app(app, arguments) == 2
    values = json.loads(result.read_text("utf-8"))
    rows = {row["name"]: row for row in values["rows"]}
    assert not values["ok"] and values["layers"] == 2
    assert rows["sync"]["result"] == "wrong" and "not a SyncNet" in rows["sync"]["words"]
    assert "xdub train syncnet" in rows["sync"]["fix"] and "\n" not in rows["sync"]["words"]
    assert rows["lip"]["result"] == rows["sync loads"]["result"] == "not run"
    assert rows["syncnet"]["result"] == "ok", "a SyncNet of one's own needs no other SyncNet"
    others = {name: row for name, row in rows.items() if name not in ("sync", "sync loads", "lip")}
    assert {name: row["result"] for name, row in others.items()} == dict.fromkeys(others, "ok")
    assert {"codec loads", "latents", "generator", "pair", "editor", "texture", "dub"} <= others.keys()
    assert " windows of pairs" in rows["latents"]["words"]
    assert "bf16, ZeRO 2, from generator" in rows["editor"]["words"]
    assert all(rows[name]["peak_gb"] > 0 for name in ("generator", "dub"))


def test_the_latents_of_a_data_set_are_checked_before_a_run(tmp_path: Path) -> None:
    recipe = load_recipe("tiny", ["phases.generator.latents=cached"])
    data = write_clips(tmp_path / "clips", recipe, 25, pairs=False)
    arguments = ["doctor", "--recipe", "tiny", "--quick", "--data", str(data)]
    arguments += ["--json", str(tmp_path / "doctor.json")]

    def latents() -> str:
        rows = json.loads((tmp_path / "doctor.json").read_text("utf-8"))["rows"]
        (row,) = (row for row in rows if row["name"].startswith("latents of "))
        return row["words"]

    cached = ["--set", "phases.generator.latents=cached"]
    assert run_app(app, [*arguments, *cached]) == 2
    assert "have no latents in" in latents()
    encode_latents(recipe, data, local=True)
    assert run_app(app, [*arguments, *cached]) == 0
    assert run_app(app, arguments) == 0
    assert "no phase that trains on clips reads cached" in latents()


def test_quick_reads_headers_and_names_every_fault_with_its_fix(weights: Path, capsys) -> None:
    wrong = ["--set", "audio.dim=384", "--set", "codec.channels=12"]
    arguments = ["doctor", "--recipe", "mini", "--quick", "--set", f"weights={weights}", *wrong]
    assert run_app(app, arguments) == 2
    printed = capsys.readouterr()
    text = " ".join(printed.out.replace("│", " ").split())
    assert "fix: --set audio.dim=32" in text and "fix: --set codec.channels=16" in text
    assert "codec, audio, sync" in printed.err


def test_networks_of_preparation_have_rows() -> None:
    rows, _ = examine(load_recipe("tiny", ["masks.face=flame"]), Sizes(quick=True))
    results = {row.name: row.result for row in rows}
    assert {"face", "voice_activity", "voice"} <= results.keys()
    assert results["flame"] == results["smirk"] == "wrong"
    assert all("--set weights=DIR" in row.fix for row in rows if row.name in ("flame", "smirk"))


def test_a_recipe_without_weights_of_its_own_passes_the_quick_half() -> None:
    assert run_app(app, ["doctor", "--recipe", "tiny", "--quick"]) == 0


def test_a_failed_check_becomes_a_row_and_does_not_end_the_examination() -> None:
    def user_mistake() -> str:
        raise UserError("this is wrong; do that")

    def defect() -> str:
        raise RuntimeError("first line\nsecond line")

    def dependent() -> str:
        raise NotRun("needs the codec")

    examiner = Examiner(torch.device("cpu"))
    results = [examiner.check("check", run) for run in (user_mistake, defect, dependent, lambda: "fine")]
    assert results == [False, False, False, True]
    assert [row.result for row in examiner.rows] == ["wrong", "wrong", "not run", "ok"]
    assert (examiner.rows[0].words, examiner.rows[0].fix) == ("this is wrong", "do that")
    assert examiner.rows[1].words == "RuntimeError: first line" and "second line" in examiner.rows[1].trace


def test_a_rehearsal_keeps_kinds_widths_and_precisions() -> None:
    recipe = load_recipe("xdub-1b", ["weights=/shared/weights"])
    small = plan_rehearsal(recipe, torch.device("cpu"), Path("scratch")).small
    assert small.model.num_layers == 2 and small.model.hidden_size == recipe.model.hidden_size
    assert (small.codec, small.audio, small.perception, small.lora) == (
        *(recipe.codec, recipe.audio, recipe.perception, recipe.lora),
    )
    for phase in recipe.phase_names:
        before, after = recipe.for_phase(phase), small.for_phase(phase)
        assert (after.precision, after.zero_stage, after.lr) == (
            before.precision,
            before.zero_stage,
            before.lr,
        )
        assert (after.steps, after.workers, after.upload_to) == (1, 1, None)
    on_gpu = plan_rehearsal(recipe, torch.device("cuda"), Path("scratch")).small
    assert on_gpu.video.size == 512 and on_gpu.phase("editor").window == 77


def test_a_rehearsal_keeps_storage_offload_and_adapters_and_sums_gradients() -> None:
    settings = ["weights=/shared/weights", "model.base=/shared/wan"]
    for name in ("wan-5b-24gb", "wan-1.3b-24gb"):
        recipe = load_recipe(name, settings)
        rehearsal = plan_rehearsal(recipe, torch.device("cuda"), Path("scratch"))
        small = rehearsal.small
        assert (small.model.base, small.model.num_layers) == (str(rehearsal.stand_in), 2)
        for phase in recipe.phase_names:
            before, after = recipe.for_phase(phase), small.for_phase(phase)
            for key in ("tune", "base_dtype", "offload", "optimizer", "zero_stage", "micro_batch"):
                assert getattr(after, key) == getattr(before, key)
            assert after.global_batch == 2 * after.micro_batch
    shallow = load_recipe("wan-5b-24gb", [*settings, "model.num_layers=2"])
    kept = plan_rehearsal(shallow, torch.device("cpu"), Path("scratch"))
    assert (kept.small.model.base, kept.stand_in) == ("/shared/wan", None)
    drawn = load_recipe("wan-5b", [*settings, "model.base=random"])
    assert plan_rehearsal(drawn, torch.device("cpu"), Path("scratch")).small.model.base == "random"


def test_a_rehearsal_tunes_compact_and_offloaded_weights_with_accumulation(
    tmp_path: Path, monkeypatch
) -> None:
    write_miniature(load_recipe("mini-wan"), tmp_path / "weights")
    lean = ["base_dtype=int8", "offload=optimizer+blocks", "zero_stage=2", "activation_checkpointing=full"]
    settings = [f"weights={tmp_path / 'weights'}", "model.num_layers=3", *(f"train.{each}" for each in lean)]
    device = torch.device("cpu")
    rehearsal = plan_rehearsal(load_recipe("mini-wan", settings), device, tmp_path, size=32, frames=9)
    engines, own_step = list[Engine](), Engine.step

    def step(engine: Engine) -> bool:
        engines.append(engine)
        return own_step(engine)

    monkeypatch.setattr(Engine, "step", step)
    checks = StageChecks(rehearsal, Examiner(device), set(), tmp_path)
    checks.clips()
    assert rehearsal.stand_in is not None
    assert "2 blocks of width 64" in checks.open_weights(rehearsal.stand_in)
    assert "bf16, ZeRO 2, adapter on int8" in checks.phase("editor")
    (engine,) = engines
    assert engine.micro_batches == 2 and engine.model.module.cfg.num_layers == 2
    assert sum(isinstance(module, StoredLinear) for module in engine.model.modules()) >= 2 * 10
    assert (checks.run_folder.phase("editor").export / "model.safetensors").is_file()


def test_the_shortest_windows_of_a_rehearsal_are_longer_than_their_motion_frames() -> None:
    for codec in ([], ["codec.kind=wan2.2", "codec.channels=48"]):
        recipe = load_recipe("xdub-1b", ["weights=/shared/weights", *codec])
        small = plan_rehearsal(recipe, torch.device("cpu"), Path("scratch"), frames=5).small
        assert {small.window(name) for name in (*small.phase_names, "syncnet")} == {9}
        assert (small.pairs.segment_frames, small.dub.window, small.video.size) == (9, 9, 64)


def test_a_rehearsal_of_a_syncnet_has_one_clip_to_train_on_and_one_to_measure() -> None:
    recipe = load_recipe("tiny")
    own = plan_rehearsal(recipe, torch.device("cpu"), Path("scratch")).small
    train = own.for_phase("syncnet")
    assert (own.syncnet.held_out, own.syncnet.clips, own.syncnet.codec_share) == (0.5, 2, 1.0)
    assert (train.steps, train.micro_batch, train.precision) == (1, 2, recipe.for_phase("syncnet").precision)
    on_gpu = plan_rehearsal(recipe, torch.device("cuda"), Path("scratch")).small
    assert on_gpu.for_phase("syncnet").micro_batch == recipe.for_phase("syncnet").micro_batch


def test_the_sampler_of_a_rehearsal_has_a_step_for_every_expert() -> None:
    for name in ("tiny", "small", "xdub-1b"):
        recipe = load_recipe(name)
        assert experts_at(recipe, least_steps(recipe)) == {"lip", "texture"}
    one_band = load_recipe("tiny", ["dub.texture_band=[0.0, 0.001]"])
    assert experts_at(one_band, one_band.dub.sampler_steps) == {"lip"}


def test_a_drawn_face_has_the_opening_that_its_landmarks_show() -> None:
    opening = np.array([0.0, 0.15, 0.3])
    measured = mouth_opening(landmarks_of(opening, 256))
    assert np.all(np.diff(measured) > 0.05)
    clip = drawn_clip(64, 5, 0, pair=True)
    assert clip.face_mask.any(axis=(1, 2)).all() and clip.lip_mask.any(axis=(1, 2)).all()
    assert clip.reference is not None and not np.array_equal(clip.reference, clip.frames)
