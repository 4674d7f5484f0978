"""Adapters are loaded by peft, diffusers and ComfyUI's key form with the same change of the weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders import WanLoraLoaderMixin
from peft import PeftModel
from safetensors.torch import load_file

from xdub.errors import UserError
from xdub.export import export_weights
from xdub.export.adapters import Adapter, read_adapter, write_comfy, write_diffusers
from xdub.export.source import open_source
from xdub.model import load_backbone, save_backbone
from xdub.perception.open_models.wan_names import diffusers_name

BASE = "wan2.2-ti2v-5b"


@pytest.fixture(scope="module")
def adapter(tuned) -> Adapter:
    return read_adapter(open_source(tuned.folder).part("editor"))


def changes(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return module -> delta W of the only adapter of a network with peft's layers."""
    from peft.tuners.lora import LoraLayer

    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    return {
        name.removeprefix("base_model.model."): layer.get_delta_weight(next(iter(layer.lora_A)))
        for name, layer in layers.items()
    }


def assert_same(loaded: dict[str, torch.Tensor], adapter: Adapter, rename=lambda name: name) -> None:
    assert loaded.keys() == {rename(module) for module in adapter.layers}
    for module in adapter.layers:
        expected = adapter.change(module)
        torch.testing.assert_close(loaded[rename(module)], expected, rtol=1e-6, atol=1e-7)


def diffusers_base(tuned, folder: Path) -> WanTransformer3DModel:
    save_backbone(load_backbone(tuned.base), folder / "base-diffusers", "diffusers")
    return WanTransformer3DModel.from_pretrained(folder / "base-diffusers").eval()


def test_the_adapter_of_a_run_has_the_rank_alpha_and_layers_of_its_recipe(tuned, adapter: Adapter) -> None:
    assert (adapter.rank, adapter.alpha, len(adapter.layers)) == (4, 6.0, 12)
    # The speech branch was trained whole, because the base does not have it.
    assert any("audio_attn" in name for name in adapter.additions)
    layer = tuned.model.get_submodule("blocks.1.ffn.0")
    torch.testing.assert_close(adapter.change("blocks.1.ffn.0"), layer.get_delta_weight("tuned"))


def test_peft_loads_the_folder_onto_the_base(tuned, adapter: Adapter, tmp_path: Path) -> None:
    result = export_weights(tuned.folder, tmp_path / "peft", "peft", base=BASE)
    assert set(result.files) == {"adapter_config.json", "adapter_model.safetensors", "additions.safetensors"}
    model = PeftModel.from_pretrained(load_backbone(tuned.base), result.folder)
    assert_same(changes(model), adapter)
    config = json.loads((result.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "Wan-AI/Wan2.2-TI2V-5B" and config["r"] == 4
    additions = load_file(result.folder / "additions.safetensors")
    assert all(torch.equal(additions[name], value) for name, value in adapter.additions.items())


def test_diffusers_loads_rank_and_alpha_from_its_form_and_computes_the_same(
    tuned, adapter: Adapter, tmp_path: Path
) -> None:
    result = export_weights(tuned.folder, tmp_path / "d", "diffusers-lora", base=BASE)
    state, metadata = WanLoraLoaderMixin.lora_state_dict(result.folder, return_lora_metadata=True)
    assert metadata["transformer.lora_alpha"] == 6.0
    transformer = diffusers_base(tuned, tmp_path)
    transformer.load_lora_adapter(state, prefix="transformer", metadata=metadata)
    assert_same(changes(transformer), adapter, diffusers_name)
    torch.manual_seed(0)
    z, text, t = torch.randn(1, 48, 2, 4, 4), torch.randn(1, 6, 16), torch.tensor([0.7])
    with torch.no_grad():
        expected = transformer(z, 1000 * t, text, return_dict=False)[0]
        ours = tuned.model.velocity_from_text(z, t, text)
    assert float((ours - expected).abs().max() / expected.abs().max()) < 1e-5


def test_the_form_of_comfyui_carries_alpha_and_diffusers_converts_it(
    tuned, adapter: Adapter, tmp_path: Path
) -> None:
    result = export_weights(tuned.folder, tmp_path / "c", "comfy-lora", base=BASE)
    name = "editor_lora.safetensors"
    state = load_file(result.folder / name)
    assert float(state["diffusion_model.blocks.0.ffn.0.alpha"]) == 6.0
    assert state["diffusion_model.blocks.0.self_attn.q.lora_A.weight"].shape == (4, 48)
    converted = WanLoraLoaderMixin.lora_state_dict(result.folder, weight_name=name)
    transformer = diffusers_base(tuned, tmp_path)
    transformer.load_lora_adapter(converted, prefix="transformer")
    assert_same(changes(transformer), adapter, diffusers_name)


@pytest.mark.parametrize("write", [write_diffusers, write_comfy])
def test_layers_of_the_speech_branch_go_into_a_second_file(adapter: Adapter, tmp_path: Path, write) -> None:
    first = next(iter(adapter.layers.values()))
    both = Adapter(**{**vars(adapter), "layers": adapter.layers | {"blocks.0.audio_attn.q": first}})
    names = write(both, tmp_path)
    assert names[1:] == ["additions.safetensors"]
    assert not any("audio" in name for name in load_file(tmp_path / names[0]))
    second = load_file(tmp_path / "additions.safetensors")
    parts = {f"blocks.0.audio_attn.q.{part}" for part in ("lora_A.weight", "lora_B.weight", "alpha")}
    assert parts <= set(second)
    only = Adapter(**{**vars(both), "layers": {"blocks.0.audio_attn.q": first}})
    with pytest.raises(UserError, match="adapts the speech branch alone"):
        write(only, tmp_path)


def test_experts_of_the_papers_network_are_peft_folders(tmp_path: Path) -> None:
    result = export_weights("tiny", tmp_path / "out", "peft", licence="apache-2.0")
    assert result.phases == ("lip", "texture")
    lip = read_adapter(open_source("tiny").part("lip"))
    assert_same(changes(PeftModel.from_pretrained(load_backbone("tiny"), result.folder / "lip")), lip)
    for form in ("diffusers-lora", "comfy-lora"):
        with pytest.raises(UserError, match="neither diffusers nor ComfyUI has the paper's network"):
            export_weights("tiny", tmp_path / "other", form)
    assert not (tmp_path / "other").exists()
