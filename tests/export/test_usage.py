"""The code of a model card runs as printed, in the folder of the export, for every form and every adapter."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel

from xdub.errors import UserError
from xdub.export import FORMS, export_weights
from xdub.export.card import CARD, bases_of
from xdub.export.usage import Loaded, usage
from xdub.files.run_folder import RunFolder
from xdub.files.tensor_headers import read_shapes
from xdub.files.tensors import signature
from xdub.model import load_backbone, save_backbone
from xdub.model.lora import add_expert, expert_state, merge_adapter
from xdub.model.release_testing import write_editor
from xdub.perception.open_models import store
from xdub.perception.open_models.entry import ModelFile
from xdub.perception.open_models.table import OPEN_MODELS, open_model
from xdub.train.state.export import write_export

BASE = "wan2.2-ti2v-5b"


@pytest.fixture(scope="module")
def run(tuned, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.nn.Module]]:
    """Return a run with a tuned editor and an expert on it, and the network of each phase."""
    folder = shutil.copytree(tuned.folder, tmp_path_factory.mktemp("usage") / "run")
    lip = load_backbone(RunFolder(tuned.folder).phase("editor").export)
    add_expert(lip, "lip", tuned.recipe.lora)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, value in lip.named_parameters():
            if ".lora_" in name:
                value.data.normal_(std=0.05)
    facts = {"kind": "adapter", "phase": "lip", "step": 3, "averaged": True, "recipe": tuned.recipe.to_dict()}
    write_export(RunFolder(folder).phase("lip").export, expert_state(lip, "lip"), facts)
    merge_adapter(lip, "lip")
    assert float((sample(lip) - sample(tuned.model)).abs().max()) > 0.01
    return folder, {"editor": tuned.model, "lip": lip.eval()}


@pytest.fixture
def base(tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the small base where the registry looks for Wan 2.2, and a pipeline with it where diffusers does."""
    shutil.copytree(tuned.base, tmp_path / "weights" / BASE)
    monkeypatch.setenv("XDUB_WEIGHTS", str(tmp_path / "weights"))
    files = [
        ModelFile(name=path.name, source=open_model(BASE).files[0].source, size=path.stat().st_size)
        for path in tuned.base.iterdir()
    ]
    small = replace(open_model(BASE), files=tuple(files), signature=None)
    monkeypatch.setattr(store, "open_model", lambda role: {BASE: small}.get(role) or open_model(role))

    def pipeline(name: str) -> WanPipeline:
        assert name == "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
        save_backbone(load_backbone(BASE), tmp_path / "pipeline", "diffusers")
        network = WanTransformer3DModel.from_pretrained(tmp_path / "pipeline")
        return WanPipeline(tokenizer=None, text_encoder=None, vae=None, scheduler=None, transformer=network)

    monkeypatch.setattr(WanPipeline, "from_pretrained", pipeline)


def code_of(folder: Path) -> str:
    match = re.search(r"```python\n(.*?)```", (folder / CARD).read_text(), re.S)
    assert match is not None
    return match[1]


def executed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the code of a folder's card in the folder; return its variables."""
    monkeypatch.chdir(folder)
    values: dict[str, Any] = {}
    exec(code_of(folder), values)
    return values


def sample(model: torch.nn.Module) -> torch.Tensor:
    """Return the velocity of a fixed input, by a network of this project or of diffusers."""
    torch.manual_seed(0)
    z, text, t = torch.randn(1, 48, 2, 4, 4), torch.randn(1, 6, 16), torch.tensor([0.7])
    with torch.no_grad():
        if isinstance(model, WanTransformer3DModel):
            return model.eval()(z, 1000 * t, text, return_dict=False)[0]
        return model.velocity_from_text(z, t, text)


def assert_equal(network: torch.nn.Module, expected: torch.nn.Module) -> None:
    torch.testing.assert_close(sample(network), sample(expected), rtol=1e-4, atol=1e-4)
    if not isinstance(network, WanTransformer3DModel):
        own = network.state_dict()
        for name, value in own.items():
            if "audio" in name:
                torch.testing.assert_close(value, expected.state_dict()[name])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("phase", ["editor", "lip"])
def test_the_code_of_one_phase_runs_as_printed(run, base, tmp_path, monkeypatch, form, phase) -> None:
    source, networks = run
    result = export_weights(source, tmp_path / "out", form, phase=phase, base=BASE)
    if "EDITOR" in code_of(result.folder):
        export_weights(source, tmp_path / "e", "merged", phase="editor", base=BASE).folder.rename(
            result.folder / "EDITOR"
        )
    values = executed(result.folder, monkeypatch)
    if form != "merged":
        assert_equal(values["network"], networks[phase])
    if form in ("peft", "merged"):
        model = values["model"]
        assert_equal(model.base_model.model if form == "peft" else model, networks[phase])
    if form in ("diffusers", "diffusers-lora"):
        transformer = values.get("transformer") or values["pipeline"].transformer
        assert_equal(transformer, networks[phase])


@pytest.mark.parametrize("form", ["peft", "diffusers-lora", "comfy-lora"])
def test_the_code_of_several_adapters_loads_each_of_them(run, base, tmp_path, monkeypatch, form) -> None:
    source, networks = run
    result = export_weights(source, tmp_path / "out", form, base=BASE)
    code = code_of(result.folder)
    assert "EDITOR" not in code and "# editor\n" in code and "# lip\n" in code
    values = executed(result.folder, monkeypatch)
    assert_equal(values["network"], networks["lip"])
    for phase, network in networks.items():
        assert_equal(load_backbone(result.folder / phase), network)
    with pytest.raises(UserError, match="several adapters; name the folder of one of them: editor, lip"):
        load_backbone(result.folder)


def test_the_code_of_the_shipped_experts_needs_no_other_file(tmp_path, monkeypatch) -> None:
    result = export_weights("tiny", tmp_path / "out", "peft", licence="apache-2.0")
    values = executed(result.folder, monkeypatch)
    merged = load_backbone(export_weights("tiny", tmp_path / "m", "merged", phase="texture").folder)
    for name, value in values["network"].state_dict().items():
        torch.testing.assert_close(value, merged.state_dict()[name])


def test_an_adapter_without_a_recorded_base_needs_one_as_an_argument(run, tmp_path) -> None:
    source, networks = run
    out = export_weights(source, tmp_path / "out", "peft", phase="lip", base=BASE).folder
    with pytest.raises(UserError, match=r"does not record the base of its adapter; name it with load_back"):
        load_backbone(out)
    assert_equal(load_backbone(out, base=RunFolder(source).phase("editor").export), networks["lip"])
    with pytest.raises(UserError, match="is no adapter of `xdub export`"):
        load_backbone("tiny", base=out)


def test_a_name_of_the_registry_that_is_not_here_is_reported_with_its_command(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("XDUB_WEIGHTS", raising=False)
    with pytest.raises(UserError, match=f"`xdub weights fetch {BASE}` downloads 20.0 GB"):
        load_backbone(BASE)
    with pytest.raises(UserError, match=f"`xdub weights fetch {BASE}` downloads it, and load_backbone"):
        load_backbone("Wan-AI/Wan2.2-TI2V-5B")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(UserError, match="set XDUB_ACCEPT_LICENCE=xdub-public"):
        load_backbone("xdub-public")


@pytest.mark.parametrize("role", [model.role for model in OPEN_MODELS if model.shapes is not None])
def test_the_repository_for_diffusers_is_that_of_the_registry(role: str) -> None:
    entry = open_model(role)
    adapter = Loaded(
        phase="editor", folder=".", files=["x.safetensors"], base=role, diffusers=entry.diffusers
    )
    code = usage("diffusers-lora", [adapter])
    if role.startswith("wan"):
        assert entry.diffusers in {model.repo for model in OPEN_MODELS if model.role.endswith("-diffusers")}
        assert f"from_pretrained({entry.diffusers!r})" in code
    else:
        # X-Dub and TBDub have no release for diffusers.
        assert "WanPipeline" not in code and f"load_backbone({role!r})" in code


def test_a_card_names_the_editor_of_tbdub_where_a_name_decides_and_both_where_none_does(
    run, tuned, tmp_path, monkeypatch
) -> None:
    file = tmp_path / "tbdub_student.safetensors"
    write_editor(file, audio_dim=32)
    value = signature(read_shapes(file))
    names = ("tbdub-teacher", "tbdub-student")
    models = tuple(replace(model, signature=value) if model.role in names else model for model in OPEN_MODELS)
    monkeypatch.setattr("xdub.model.recognised.OPEN_MODELS", models)

    def roles(path: Path, name: str = "tiny") -> list[str]:
        recipe = replace(tuned.recipe, name=name, model=replace(tuned.recipe.model, base=str(path)))
        return [model.role for model in bases_of(recipe)]

    assert roles(file) == ["tbdub-student"]
    other = file.rename(tmp_path / "renamed.safetensors")
    assert roles(other) == ["tbdub-teacher", "tbdub-student"]
    assert roles(other, "tbdub-teacher") == ["tbdub-teacher"]
    both = [model for model in models if model.role in names]
    monkeypatch.setattr("xdub.export.export.bases_of", lambda *_: tuple(both))
    out = export_weights(run[0], tmp_path / "out", "peft", phase="editor").folder
    card = (out / CARD).read_text()
    assert "The base is tbdub-teacher or tbdub-student" in card
    assert "# BASE is the folder of tbdub-teacher or tbdub-student." in card
    assert_equal(load_backbone(out, base=tuned.base), run[1]["editor"])
