"""The start of training from open weights: additions change nothing, and only what a phase trains moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xdub.config import Recipe, load_recipe
from xdub.errors import UserError
from xdub.files.tensors import write_tensors
from xdub.files.weight_folder import WeightFolder
from xdub.geometry import CodecGeometry
from xdub.model import load_backbone, save_backbone
from xdub.model.build import build_backbone, load_network
from xdub.model.bundle import load_bundle
from xdub.model.bundle_networks import record_networks
from xdub.model.codec import load_codec
from xdub.model.lora import ALPHA, TUNED, expert_state, file_name
from xdub.model.prompt import Prompt, write_prompt
from xdub.model.testing import random_codec, small_wan
from xdub.model.wan.network import WanDiT
from xdub.plan.rehearsal import inputs
from xdub.train.networks import build_model


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    """A recipe of kind wan beside random open weights of a plain Wan."""
    torch.manual_seed(0)
    base = WanDiT(small_wan(CodecGeometry(48, time=4, space=8)))
    for parameter in base.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    save_backbone(base, tmp_path / "base", layout="diffusers")
    write_prompt(Prompt(rows=torch.randn(1, 12), padding=511), tmp_path / "prompt.safetensors")
    return load_recipe(
        "tiny",
        [
            "model={kind: wan, hidden_size: 48, num_heads: 2, num_layers: 2, ffn_dim: 60, text_dim: 12, "
            f"order: reference_first, base: {tmp_path / 'base'}, prompt: {tmp_path / 'prompt.safetensors'}}}",
            "lora={rank: 2, alpha: 2, targets: [self_attn.q, self_attn.v, ffn.2]}",
        ],
    )


def arguments(recipe: Recipe, phase: str) -> dict:
    generator = torch.Generator().manual_seed(3)
    shapes = inputs(recipe, phase, 2, "cpu")
    noisy = {"z_t", "z_ref", "z_mask", "audio"}
    return {
        name: torch.randn(value.shape, generator=generator) if name in noisy else value
        for name, value in shapes.items()
    }


@pytest.mark.parametrize("phase", ["generator", "editor"])
def test_without_references_the_first_velocity_is_that_of_the_open_weights(recipe, phase):
    model = build_backbone(recipe, phase, random_codec(48), seed=0).eval()
    base = load_backbone(recipe.model.base)
    kwargs = arguments(recipe, phase)
    z_t, t, z_ref = kwargs.pop("z_t"), kwargs.pop("t"), kwargs.pop("z_ref")
    conditions = model.conditions(z_ref[:, :, :0], kwargs.pop("audio"), kwargs.pop("starts"), **kwargs)
    with torch.no_grad():
        velocity = model.velocity(z_t, t, conditions)
        expected = base.velocity_from_text(z_t, t, model.prompt.padded()[None].expand(2, -1, -1))
    assert (velocity - expected).norm() <= 1e-6 * expected.norm()


def step(model, optimizer, kwargs) -> dict[str, torch.Tensor]:
    """Run one step on a random target; return the gradients of the trained parameters."""
    out = model(**kwargs)
    loss = (out - torch.ones_like(out)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tune", ["all", "adapter"])
@pytest.mark.parametrize("phase", ["generator", "editor"])
def test_the_first_steps_move_what_the_phase_trains_and_nothing_else(recipe, phase, tune):
    recipe = load_recipe_with(recipe, f"train.tune={tune}")
    model = build_model(recipe, phase, random_codec(48), base=None, init_from=None)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    additions = {name for name, _ in model.named_parameters() if model.addition(name)}
    assert additions < trained
    assert any(name.startswith("mask_embedding") for name in additions) == (phase == "generator")
    if tune == "adapter":
        assert trained - additions == {name for name in trained if ".lora_" in name}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0)
    kwargs = arguments(recipe, phase)
    # A layer that enters through a zero layer has its gradient from the second step on.
    gradients = [step(model, optimizer, kwargs) for _ in range(3)]
    assert gradients[-1].keys() == trained
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    silent = {name for name in trained if not gradients[-1][name].any()}
    assert moved == trained - silent
    assert not silent & additions, silent & additions


def load_recipe_with(recipe: Recipe, *settings: str) -> Recipe:
    path = Path(recipe.model.base).parent / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    return load_recipe(path, settings)


def test_a_tuned_phase_exports_its_adapter_and_additions_which_merge_to_the_same_network(recipe, tmp_path):
    recipe = load_recipe_with(recipe, "train.tune=adapter")
    model = build_model(recipe, "editor", random_codec(48), base=None, init_from=None)
    torch.manual_seed(5)
    state = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
            state[file_name(name, TUNED)] = parameter.detach()
    write_tensors(state, tmp_path / "model.safetensors")
    kwargs = arguments(recipe, "editor")
    expected = model.eval()(**kwargs)
    weights = WeightFolder(tmp_path, (tmp_path / "model.safetensors",))
    merged = load_network(recipe, "editor", weights, random_codec(48)).eval()
    assert not any(".lora_" in name for name in merged.state_dict())
    torch.testing.assert_close(merged(**kwargs), expected, atol=1e-4, rtol=1e-4)
    again = build_model(
        recipe, "editor", random_codec(48), base=None, init_from=str(tmp_path / "model.safetensors")
    )
    assert torch.equal(again.eval()(**kwargs), expected)
    lip = build_model(
        recipe, "lip", random_codec(48), base=str(tmp_path / "model.safetensors"), init_from=None
    )
    torch.testing.assert_close(lip.eval()(**kwargs), expected, atol=1e-4, rtol=1e-4)


def test_an_editor_continues_a_generators_adapter_without_the_embedding_of_the_mask(recipe, tmp_path):
    recipe = load_recipe_with(recipe, "train.tune=adapter")
    generator = build_model(recipe, "generator", random_codec(48), base=None, init_from=None)
    trained = {name: p for name, p in generator.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        parameter.data += 0.1
    path = tmp_path / "model.safetensors"
    write_tensors({file_name(name, TUNED): p.detach() for name, p in trained.items()}, path)
    editor = build_model(recipe, "editor", random_codec(48), base=None, init_from=str(path))
    own = {name: p for name, p in editor.named_parameters() if p.requires_grad}
    assert trained.keys() - own.keys() == {"mask_embedding.weight"}
    assert all(torch.equal(p, trained[name]) for name, p in own.items())


def tuned_export(recipe: Recipe, path: Path, alpha: float) -> WanDiT:
    """Write the file of a tuned editor with random adapters; return the network."""
    model = build_model(recipe, "editor", random_codec(48), base=None, init_from=None)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        parameter.data += 0.1 * torch.randn_like(parameter)
    state = {file_name(name, TUNED): p.detach() for name, p in trained.items()}
    write_tensors(state, path, {ALPHA: str(alpha)})
    assert isinstance(model, WanDiT)
    return model


def test_a_phase_that_trains_all_weights_starts_from_a_merged_adapter_and_trains_them_all(recipe, tmp_path):
    tuned = load_recipe_with(recipe, "train.tune=adapter")
    path = tmp_path / "model.safetensors"
    tuned_export(tuned, path, recipe.lora.alpha)
    model = build_model(recipe, "editor", random_codec(48), base=None, init_from=str(path))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(".lora_" in name for name in model.state_dict())


def test_an_adapter_keeps_the_alpha_of_its_training(recipe, tmp_path):
    tuned = load_recipe_with(recipe, "train.tune=adapter", "lora.alpha=6")
    path = tmp_path / "model.safetensors"
    model = tuned_export(tuned, path, 6.0)
    other = load_recipe_with(recipe, "train.tune=adapter", "lora.alpha=1")
    kwargs = arguments(recipe, "editor")
    merged = load_network(other, "editor", WeightFolder(path, (path,)), random_codec(48)).eval()
    torch.testing.assert_close(merged(**kwargs), model.eval()(**kwargs), atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match=r"lora.alpha=6, but the recipe has 1"):
        build_model(other, "editor", random_codec(48), base=None, init_from=str(path))


def test_an_adapter_without_its_open_weights_is_refused(recipe, tmp_path):
    tuned = load_recipe_with(recipe, "train.tune=adapter")
    path = tmp_path / "model.safetensors"
    tuned_export(tuned, path, recipe.lora.alpha)
    lost = load_recipe_with(recipe, "model.base=null")
    for build in (
        lambda: load_network(lost, "editor", WeightFolder(path, (path,))),
        lambda: build_model(lost, "lip", random_codec(48), base=str(path), init_from=None),
    ):
        with pytest.raises(UserError, match="is an adapter on open weights; name them"):
            build()


def test_a_tuned_phase_does_not_start_from_weights_that_its_export_would_lack(recipe, tmp_path):
    whole = build_model(recipe, "editor", random_codec(48), base=None, init_from=None)
    write_tensors(whole.state_dict(), tmp_path / "model.safetensors")
    tuned = load_recipe_with(recipe, "train.tune=adapter")
    with pytest.raises(UserError, match="holds a whole network"):
        build_model(
            tuned, "editor", random_codec(48), base=None, init_from=str(tmp_path / "model.safetensors")
        )
    # A whole network needs no open weights.
    lost = load_recipe_with(recipe, "model.base=null")
    loaded = load_network(lost, "editor", WeightFolder(tmp_path, (tmp_path / "model.safetensors",)))
    assert all(torch.equal(p, whole.state_dict()[name]) for name, p in loaded.state_dict().items())


def test_an_expert_adapts_the_speech_that_the_tuned_editor_has(recipe, tmp_path):
    recipe = load_recipe_with(recipe, "lora.targets=[audio_attn.q, ffn.2]")
    lip = build_model(recipe, "lip", random_codec(48), base=None, init_from=None)
    assert any("audio_attn.q.lora_A" in name for name, p in lip.named_parameters() if p.requires_grad)


def test_an_adapter_keeps_its_values_to_the_bit_beside_a_bf16_network(recipe, tmp_path):
    """From the generator's export to the editor, and from that of the lip expert."""
    recipe = load_recipe_with(recipe, "train.tune=adapter", "train.precision=bf16")
    codec, path = random_codec(48), tmp_path / "adapter.safetensors"
    generator = build_model(recipe, "generator", codec, base=None, init_from=None)
    with torch.no_grad():
        for parameter in generator.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter, dtype=torch.float32))
    trained = {file_name(n, TUNED): p.detach() for n, p in generator.named_parameters() if p.requires_grad}
    assert all(value.dtype == torch.float32 for value in trained.values())
    write_tensors(trained, path, {ALPHA: "2"})
    editor = build_model(recipe, "editor", codec, base=None, init_from=str(path))
    assert editor.blocks[0].ffn[0].weight.dtype == torch.bfloat16
    values = {file_name(n, TUNED): p.detach() for n, p in editor.named_parameters() if p.requires_grad}
    assert values.keys() == {name for name in trained if not name.startswith("mask_embedding")}
    assert all(torch.equal(value, trained[name]) for name, value in values.items())

    lip = build_model(recipe, "lip", codec, base=str(path), init_from=None)
    values = {name: torch.randn_like(value) for name, value in expert_state(lip, "lip").items()}
    write_tensors(values, tmp_path / "lip.safetensors")
    continued = build_model(recipe, "lip", codec, base=str(path), init_from=str(tmp_path / "lip.safetensors"))
    assert all(torch.equal(value, values[name]) for name, value in expert_state(continued, "lip").items())


def test_a_model_folder_of_adapters_names_the_open_weights_that_it_lacks(recipe, tmp_path):
    recipe = load_recipe_with(recipe, "train.tune=adapter")
    codec, folder = load_codec(recipe.codec), tmp_path / "model"
    model = build_model(recipe, "editor", codec, base=None, init_from=None)
    trained = {file_name(n, TUNED): p.detach() for n, p in model.named_parameters() if p.requires_grad}
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    write_tensors(trained, folder / "editor.safetensors", {ALPHA: "2"})
    record_networks(recipe, folder)
    assert isinstance(load_bundle(folder).editor, WanDiT)
    other = WanDiT(small_wan(CodecGeometry(48, time=4, space=8)))
    save_backbone(other, tmp_path / "other", layout="diffusers")
    with pytest.raises(UserError, match="trained with another base network"):
        load_bundle(folder, settings=[f"model.base={tmp_path / 'other'}"])
    Path(recipe.model.base).rename(tmp_path / "moved")
    with pytest.raises(
        UserError, match=r"model.base=.*/base: there is no such file or folder of open weights"
    ):
        load_bundle(folder)
    with pytest.raises(
        UserError, match=r"editor.safetensors: is an adapter on open weights; name them with --set"
    ):
        load_bundle(folder, settings=["model.base=null"])
    assert isinstance(load_bundle(folder, settings=[f"model.base={tmp_path / 'moved'}"]).editor, WanDiT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 4}, "has num_heads=4, but the recipe's network has 2; --set model.num_heads=4"),
        ({"eps": 1e-5}, "has eps=1e-05, but the recipe's network has 1e-06"),
    ],
)
def test_open_weights_of_equal_shapes_with_other_settings_are_refused(recipe, changes, message):
    base = WanDiT(small_wan(CodecGeometry(48, time=4, space=8), **changes))
    save_backbone(base, recipe.model.base, layout="original")
    with pytest.raises(UserError, match=message):
        build_backbone(recipe, "editor", random_codec(48))
