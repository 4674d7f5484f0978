"""Merged weights equal the network with its adapter, and the card names recipe, data, base and licence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import WanTransformer3DModel

from xdub.cli import app
from xdub.cli.errors import run_app
from xdub.errors import UserError
from xdub.export import export_weights
from xdub.export.card import bases_of, card_header
from xdub.export.source import open_source
from xdub.model import load_backbone
from xdub.model.lora import load_expert, set_expert

BASE = "wan2.2-ti2v-5b"


def sample(model: torch.nn.Module) -> torch.Tensor:
    torch.manual_seed(0)
    z, text = torch.randn(1, 48, 2, 4, 4), torch.randn(1, 6, 16)
    with torch.no_grad():
        return model.velocity_from_text(z, torch.tensor([0.7]), text)


def test_merged_weights_of_a_wan_load_and_compute_as_with_the_adapter(tuned, tmp_path: Path) -> None:
    result = export_weights(tuned.folder, tmp_path / "merged", "merged", base=BASE)
    merged = load_backbone(result.folder)
    assert not any("lora" in name for name in merged.state_dict())
    torch.testing.assert_close(sample(merged), sample(tuned.model), rtol=1e-5, atol=1e-5)
    half = export_weights(tuned.folder, tmp_path / "half", "merged", base=BASE, dtype=torch.bfloat16)
    assert next(load_backbone(half.folder).parameters()).dtype == torch.bfloat16


def test_diffusers_loads_the_folder_of_its_layout(tuned, tmp_path: Path) -> None:
    result = export_weights(tuned.folder, tmp_path / "d", "diffusers", base=BASE)
    transformer = WanTransformer3DModel.from_pretrained(result.folder).eval()
    torch.manual_seed(0)
    z, text = torch.randn(1, 48, 2, 4, 4), torch.randn(1, 6, 16)
    with torch.no_grad():
        velocity = transformer(z, torch.tensor([700.0]), text, return_dict=False)[0]
    torch.testing.assert_close(velocity, sample(tuned.model), rtol=1e-4, atol=1e-5)


def test_an_expert_of_the_papers_network_is_merged_into_the_editor(tmp_path: Path) -> None:
    result = export_weights("tiny", tmp_path / "lip", "merged", phase="lip")
    merged, editor, part = (
        load_backbone(result.folder),
        load_backbone("tiny"),
        open_source("tiny").part("lip"),
    )
    load_expert(editor, "lip", part.file, part.recipe.lora)
    set_expert(editor, "lip")
    torch.manual_seed(0)
    arguments = dict(
        z_t=torch.randn(1, 48, 2, 8, 8),
        t=torch.tensor([0.5]),
        z_ref=torch.randn(1, 48, 2, 8, 8),
        audio=torch.randn(1, 40, 80),
        starts=torch.tensor([0, 8]),
    )
    with torch.no_grad():
        torch.testing.assert_close(merged(**arguments), editor.eval()(**arguments), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="diffusers has no class for the paper's network"):
        export_weights("tiny", tmp_path / "d", "diffusers")


def test_the_card_names_recipe_data_base_licence_and_scores_and_no_path(tuned, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text('{"psnr": 31.5, "leak_corr": null}')
    arguments = ["export", str(tuned.folder), "--out", str(tmp_path / "o"), "--form", "peft", "--base", BASE]
    assert run_app(app, [*arguments, "--scores", str(tmp_path / "scores.json")]) == 0
    text = (tmp_path / "o" / "README.md").read_text()
    header = card_header(text)
    assert header["license"] == "apache-2.0" and header["base_model"] == "Wan-AI/Wan2.2-TI2V-5B"
    assert header["base_model_relation"] == "adapter" and header["library_name"] == "peft"
    for words in ("| editor | 20 | pairs | 7 | `0123456789abcdef` |", "| psnr | 31.5 |", "PeftModel"):
        assert words in text
    recipe = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert recipe["lora"]["rank"] == 4 and recipe["train"]["steps"] == tuned.recipe.train.steps
    assert str(tuned.folder.parent) not in text and "/private" not in text


def test_an_unknown_base_must_be_named_because_its_licence_is_unknown(tuned, tmp_path: Path, capsys) -> None:
    assert run_app(app, ["export", str(tuned.folder), "--out", str(tmp_path / "o"), "--form", "peft"]) == 2
    assert (
        "is no model of the registry, so its licence is unknown; name it with --base"
        in capsys.readouterr().err
    )
    (base,) = bases_of(tuned.recipe, "xdub-public")
    assert base.licence.identifier == "other"


def test_a_base_in_a_folder_of_weights_that_is_not_here_must_be_named(tuned, tmp_path: Path) -> None:
    model = replace(tuned.recipe.model, base=None)
    for folder in (tmp_path, tmp_path / "absent"):
        recipe = replace(tuned.recipe, model=model, weights=str(folder))
        with pytest.raises(UserError, match=r"has no open weights here, .* name it with --base"):
            bases_of(recipe)
        assert bases_of(recipe, "random") == ()
    assert bases_of(replace(recipe, model=replace(model, base="random"))) == ()


@pytest.mark.parametrize("role", ["umt5", "wan2.2-vae-bf16"])
def test_only_a_network_that_a_model_starts_from_is_its_base(tuned, tmp_path: Path, role: str) -> None:
    with pytest.raises(UserError, match=f"--base {role}: is no network that a model starts from"):
        export_weights(tuned.folder, tmp_path / "o", "peft", base=role)
    with pytest.raises(UserError, match="model.kind=xdub starts from no open model"):
        export_weights("tiny", tmp_path / "o", "peft", base=BASE)


def test_only_an_export_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_weights("tiny", out, "peft")
    export_weights("tiny", out, "peft", phase="lip")
    assert not (out / "texture").exists() and (out / "adapter_config.json").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files that are no export"):
        export_weights("tiny", tmp_path / "mine", "peft")
    with pytest.raises(UserError, match="is a whole network, not an adapter"):
        export_weights("tiny", out, "peft", phase="editor")
    with pytest.raises(UserError, match="has no weights of 'lips'; it has generator, editor, lip, texture"):
        export_weights("tiny", out, "peft", phase="lips")
    with pytest.raises(UserError, match="holds no trained weights"):
        export_weights(tmp_path, out, "peft")
