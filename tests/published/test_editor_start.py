"""A published editor NAME:DIR as the start of training: the command line and Python resolve it alike."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from xdub.bootstrap import bootstrap, bootstrap_stages
from xdub.cli import app
from xdub.cli.errors import run_app
from xdub.config import load_recipe
from xdub.data.manifest import read_manifest
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.errors import UserError
from xdub.files.content import content_digest, file_sha256
from xdub.files.run_folder import RunFolder
from xdub.model import save_backbone
from xdub.model.editor_start import load_recipe_from_editor, start_from_editor
from xdub.model.testing import small_wan
from xdub.model.wan.network import WanDiT
from xdub.train.rank import TrainJob, run_facts
from xdub.train.run import train_phase

SMALL = [
    "video.size=64",
    "video.clip_frames=21",
    "train.precision=fp32",
    "train.workers=1",
    "train.global_batch=1",
]
SMALL += ["lora.rank=2", "phases.editor.window=13", "phases.lip.window=13", "phases.texture.window=13"]
TEXTURE = ["perception.identity=mobilefacenet", "perception.features=tiny"]
"""Networks of the texture expert that need no file."""


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[TrainJob]:
    """Record the jobs of training instead of running them."""
    recorded: list[TrainJob] = []

    def run_job(job: TrainJob, *, local: bool) -> int:
        recorded.append(job)
        return 0

    monkeypatch.setattr("xdub.train.run.run_job", run_job)
    monkeypatch.setattr("xdub.train.run.check_resources", lambda train: None)
    return recorded


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "pairs") as writer:
        writer.add(make_clip(0, num_frames=21, size=64, pair=True))
    return tmp_path / "pairs"


def facts(job: TrainJob) -> dict[str, Any]:
    """Return everything in a job but its folder and its time."""
    values = {key: value for key, value in vars(job).items() if key not in ("folder", "started", "recipe")}
    return values | asdict(job.recipe)


def test_the_verb_and_the_function_train_the_same_job_from_an_editor(
    releases, accepted, jobs, data, tmp_path
):
    words = ["--recipe", "tbdub-lora", "--data", str(data), *(f"--set={text}" for text in SMALL)]
    teacher, recipe = releases["tbdub-teacher"], load_recipe("tbdub-lora", SMALL)
    assert (
        run_app(app, ["train", "editor", "--init-from", teacher, "--out", str(tmp_path / "a"), *words]) == 0
    )
    train_phase("editor", recipe, data, tmp_path / "b", init_from=teacher)
    in_recipe = load_recipe("tbdub-lora", [*SMALL, f"train.init_from={teacher}"])
    train_phase("editor", in_recipe, data, tmp_path / "c")
    first, second, third = map(facts, jobs)
    assert first == second
    assert first["model"] == third["model"] and third["init_from"] is None
    folder = Path(teacher.split(":")[1])
    assert first["model"]["base"] == str(folder / "tbdub_teacher.safetensors")
    assert (first["model"]["hidden_size"], first["audio"]["dim"]) == (128, 32)
    assert first["codec"]["path"] == str(folder / "Wan2.2_VAE.safetensors") and first["init_from"] is None
    assert first["networks"].keys() >= {"base", "prompt", "codec", "audio"}


def test_an_expert_adapts_the_editor_that_its_base_names(releases, accepted, jobs, data, tmp_path):
    words = ["--recipe", "tbdub-lora", "--data", str(data), *(f"--set={text}" for text in SMALL)]
    words += [f"--set={text}" for text in TEXTURE]
    student = releases["tbdub-student"]
    code = run_app(app, ["train", "texture", "--base", student, "--out", str(tmp_path / "a"), *words])
    assert code == 0
    weights = Path(student.split(":")[1]) / "tbdub_student.safetensors"
    (job,) = jobs
    assert (job.base, job.recipe.model.base) == (str(weights), str(weights))
    assert job.base_digest == file_sha256(weights)[:16]


def test_the_digest_of_a_base_in_several_files_is_computed_once_and_given_to_the_ranks(
    releases, accepted, jobs, data, tmp_path, monkeypatch
):
    recipe = start_from_editor(load_recipe("tbdub-lora", [*SMALL, *TEXTURE]), releases["tbdub-teacher"])
    base = WanDiT(small_wan(recipe.codec.geometry))
    monkeypatch.setattr("xdub.model.wan.files.SHARD", "50KB")
    save_backbone(base, tmp_path / "pipeline" / "transformer", layout="diffusers")
    assert len(list((tmp_path / "pipeline" / "transformer").glob("*.safetensors"))) > 1
    train_phase("texture", recipe, data, tmp_path / "run", base=tmp_path / "pipeline")
    (job,) = jobs
    digest = content_digest(tmp_path / "pipeline" / "transformer")
    monkeypatch.setattr("xdub.files.content.file_sha256", lambda path: pytest.fail("a rank reads the base"))
    assert run_facts(job, 1, 1, data="")["base"] == digest[:16]


def test_training_from_an_editor_needs_consent_to_its_licence(releases, settings_folder, data, tmp_path):
    with pytest.raises(UserError, match="--accept-licence tbdub-teacher"):
        train_phase(
            "editor", load_recipe("tbdub-lora", SMALL), data, tmp_path, init_from=releases["tbdub-teacher"]
        )


def test_an_editors_own_weights_and_other_open_weights_exclude_each_other(releases, tmp_path):
    teacher = releases["tbdub-teacher"]
    recipe = load_recipe("tbdub-lora", [*SMALL, f"model.base={json.dumps(str(tmp_path))}"])
    with pytest.raises(UserError, match=r"tbdub-teacher:.* starts from its own weights, .* model\.base="):
        start_from_editor(recipe, teacher)


def test_a_recipe_file_keeps_its_own_files_on_the_command_line_and_in_python(releases, tmp_path):
    teacher, file = releases["tbdub-teacher"], tmp_path / "mine.yaml"
    prompt = str(tmp_path / "my.safetensors")
    file.write_text(f"base: tbdub-lora-24gb\nmodel: {{prompt: {prompt}}}\ncodec: {{path: my_vae}}\n")
    recipe = load_recipe_from_editor(file, (None, teacher), ["train.steps=3"])
    assert (recipe.model.prompt, recipe.codec.path) == (prompt, "my_vae")
    assert recipe.model.hidden_size == 128 and recipe.audio.path is not None
    assert recipe == start_from_editor(load_recipe(file, ["train.steps=3"]), teacher)
    with pytest.raises(
        UserError, match=r"--set model\.num_layers=3: the files in .* decide model\.num_layers"
    ):
        load_recipe_from_editor(file, (teacher,), ["model.num_layers=3"])
    file.write_text(f"base: tbdub-lora-24gb\nmodel: {{base: {tmp_path}}}\n")
    with pytest.raises(UserError, match=r"tbdub-teacher:.* starts from its own weights, .* model\.base="):
        load_recipe_from_editor(file, (teacher,))


def test_a_bootstrap_with_an_editor_of_another_kind_of_sampling_writes_no_record(
    releases, data, tmp_path, monkeypatch
):
    run, student = RunFolder(tmp_path / "run"), releases["tbdub-student"]
    monkeypatch.setattr(sys.modules[bootstrap.__module__], "_check_inputs", lambda *_: read_manifest(data))
    with pytest.raises(
        UserError, match=r"--set dub\.guidance=null .*--set dub\.motion=latents .*lead_in=true"
    ):
        bootstrap(load_recipe("tbdub-lora", [*SMALL, *TEXTURE]), data, run.path, generator=student)
    assert not run.bootstrap.exists()


def test_doctor_checks_a_recipe_with_the_files_of_its_editor(releases, capsys):
    arguments = ["doctor", "--recipe", "tbdub-lora", "--quick", *(w for s in SMALL for w in ("--set", s))]
    run_app(app, arguments)
    assert "--generator NAME:DIR" in capsys.readouterr().out.replace("\n", " ")
    run_app(app, [*arguments, "--generator", releases["tbdub-teacher"]])
    assert "tbdub_teacher.safetensors" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize("name", ["wan-5b", "tiny", "xdub-public-lora"])
def test_an_editor_is_no_start_for_a_recipe_with_another_network(releases, name):
    teacher = releases["tbdub-teacher"]
    words = rf"tbdub-teacher:.*: recipe {name} has another network .*; use a recipe that is based on tbdub-teacher"
    with pytest.raises(UserError, match=words):
        load_recipe_from_editor(name, (teacher,), ["train.steps=2"])
    with pytest.raises(UserError, match=words):
        start_from_editor(load_recipe(name), teacher)


def test_a_bootstrap_trains_the_editor_that_makes_its_pairs(releases, data, tmp_path, monkeypatch):
    recipe, teacher = load_recipe("tbdub-lora", SMALL), releases["tbdub-teacher"]
    module, recipes = sys.modules[bootstrap.__module__], []
    monkeypatch.setattr(module, "_check_inputs", lambda recipe, *_: recipes.append(recipe))
    monkeypatch.setattr(module, "begin", lambda recipe, *_: recipes.append(recipe))
    monkeypatch.setattr(module, "_train", lambda name, recipe, *_: recipes.append(recipe))
    bootstrap_stages(recipe, data, tmp_path / "run", generator=teacher)[1].run(lambda *_: None)
    monkeypatch.setattr(module, "bootstrap_stages", lambda *_, **__: [])
    bootstrap(recipe, data, tmp_path / "run", generator=teacher)
    assert recipes == [start_from_editor(recipe, teacher)] * 3
    assert recipes[0].model.base == str(Path(teacher.split(":")[1]) / "tbdub_teacher.safetensors")
