"""Experts change nothing before training, one is active at a time, their files round-trip, the base stays frozen."""

from __future__ import annotations

import pytest
import torch

from xdub.config import LoraConfig
from xdub.errors import UserError
from xdub.files.tensors import read_tensors, write_tensors
from xdub.geometry import CodecGeometry
from xdub.model.dit import DiTConfig, VideoDiT
from xdub.model.lora import add_expert, load_expert, save_expert, set_expert

LORA = LoraConfig(rank=2, alpha=2, targets=("qkv", "out", "ffn.0"))


def build() -> VideoDiT:
    torch.manual_seed(0)
    config = DiTConfig(
        geometry=CodecGeometry(4, time=4, space=8),
        masked_input=False,
        audio_dim=7,
        linear_skip=True,
        hidden_size=32,
        num_heads=2,
        num_layers=2,
    )
    model = VideoDiT(config).eval()
    model.proj_out.weight.data.normal_()
    return model


def run(model):
    generator = torch.Generator().manual_seed(1)
    z_t, z_ref = torch.randn(2, 1, 4, 2, 4, 4, generator=generator)
    audio = torch.randn(1, 18, 7, generator=generator)
    return model(z_t, torch.tensor([0.5]), z_ref, audio, torch.tensor([0, 2]))


def change_weights(model, name):
    for key, parameter in model.named_parameters():
        if f".{name}." in key:
            parameter.data += 0.1 * torch.randn_like(parameter)


def test_a_fresh_expert_changes_nothing_and_freezes_the_base():
    model = build()
    before = run(model)
    add_expert(model, "lip", LORA)
    assert torch.equal(run(model), before)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable and all(".lora_" in name and ".lip." in name for name in trainable)


def test_one_expert_is_active_at_a_time_and_without_one_the_output_is_the_bases():
    model = build()
    before = run(model)
    for name in ("lip", "texture"):
        add_expert(model, name, LORA)
        change_weights(model, name)
    outputs = {}
    for name in ("lip", "texture", None):
        set_expert(model, name)
        outputs[name] = run(model)
    assert torch.equal(outputs[None], before)
    assert not torch.allclose(outputs["lip"], before)
    assert not torch.allclose(outputs["lip"], outputs["texture"])


def test_an_expert_file_loads_beside_another_expert(tmp_path):
    model = build()
    add_expert(model, "lip", LORA)
    change_weights(model, "lip")
    save_expert(model, "lip", tmp_path / "lip.safetensors")
    expected = run(model)
    other = build()
    add_expert(other, "texture", LORA)
    load_expert(other, "lip", tmp_path / "lip.safetensors", LORA)
    torch.testing.assert_close(run(other), expected)


def test_an_error_names_targets_that_match_no_layer_and_wrong_ranks(tmp_path):
    with pytest.raises(UserError, match="nonsense"):
        add_expert(build(), "lip", LoraConfig(rank=2, alpha=2, targets=("nonsense",)))
    with pytest.raises(UserError, match="lora.targets: foo matches no layer; valid: qkv"):
        add_expert(build(), "lip", LoraConfig(rank=2, alpha=2, targets=("qkv", "foo")))
    model = build()
    add_expert(model, "lip", LORA)
    save_expert(model, "lip", tmp_path / "lip.safetensors")
    tensors = read_tensors(tmp_path / "lip.safetensors")
    name = min(tensors)
    write_tensors(tensors | {name: tensors[name] / 0}, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match=f"nan.safetensors: {name} has values that are not finite"):
        load_expert(build(), "lip", tmp_path / "nan.safetensors", LORA)
    # A file of an earlier version may name such targets beside those that it was trained with.
    older = LoraConfig(rank=2, alpha=2, targets=(*LORA.targets, "proj"))
    load_expert(build(), "lip", tmp_path / "lip.safetensors", older)
    with pytest.raises(UserError, match="lora.rank=3"):
        load_expert(
            build(), "lip", tmp_path / "lip.safetensors", LoraConfig(rank=3, alpha=2, targets=LORA.targets)
        )
