"""Compact storage of a frozen base: how far it is from the weights, and training of adapters on it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xdub.config import load_recipe
from xdub.errors import UserError
from xdub.model.build import build_backbone
from xdub.model.frozen_base import StoredLinear, decode_weight, encode_weight, store_frozen
from xdub.model.lora import add_expert, expert_state, set_expert
from xdub.model.testing import random_backbone, random_codec
from xdub.plan.rehearsal import inputs

SMALL = ("model.num_layers=2", "model.hidden_size=64", "model.num_heads=2", "video.size=32")
STORAGES = ("bf16", "int8", "fp8")


def recipe(*overrides: str):
    return load_recipe("tiny", [*SMALL, *overrides])


def adapted(storage: str, *, first: bool, precision: str = "fp32"):
    """Return an editor with a stored base and an adapter, which is injected before or after (``first``)."""
    config = recipe(f"train.base_dtype={storage}", f"train.precision={precision}")
    model = random_backbone(config, "editor", random_codec(config.codec.channels))
    if first:
        store_frozen(model, config.for_phase("lip"), "lip")
    torch.manual_seed(0)
    add_expert(model, "lip", config.lora)
    store_frozen(model, config.for_phase("lip"), "lip") if not first else None
    return config, model


@pytest.mark.parametrize(("storage", "error"), [("bf16", 2**-8), ("int8", 0.5 / 127), ("fp8", 2**-4)])
def test_decoded_weights_are_within_half_a_step_of_the_weights(storage, error):
    weight = (
        torch.randn(50, 70, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 2, 50)[:, None]
    )
    weight[7] = 0
    codes, scale = encode_weight(weight, storage)
    decoded = decode_weight(codes, scale, torch.float32)
    bound = error * (weight.abs().amax(1, keepdim=True) if storage == "int8" else weight.abs())
    smallest = 0 if scale is None else scale * 2**-10  # half the smallest number of fp8
    assert ((decoded - weight).abs() <= bound * (1 + 1e-6) + smallest).all()
    assert torch.equal(decoded[7], weight[7])
    assert codes.nbytes == weight.numel() * {"bf16": 2}.get(storage, 1)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_stored_layer_computes_output_and_gradient_of_its_decoded_weight(storage):
    torch.manual_seed(0)
    linear = nn.Linear(24, 40).requires_grad_(False)
    stored = StoredLinear(linear, storage)
    x = torch.randn(3, 5, 24, requires_grad=True)
    plain = nn.Linear(24, 40).requires_grad_(False)
    plain.weight.data, plain.bias.data = decode_weight(stored.codes, stored.scale, torch.float32), linear.bias
    expected = plain(x)
    assert torch.equal(stored(x), expected)
    grad = torch.randn_like(expected)
    (ours,), (reference,) = (torch.autograd.grad(y, x, grad) for y in (stored(x), expected))
    assert torch.allclose(ours, reference, atol=1e-6)
    half = stored.bfloat16()
    assert half(x.bfloat16()).dtype is torch.bfloat16
    assert half.scale is None or half.scale.dtype is torch.float32


@pytest.mark.parametrize("storage", STORAGES)
def test_adapters_fit_stored_layers_in_either_order_and_have_the_same_names(storage):
    outputs = []
    for first in (True, False):
        config, model = adapted(storage, first=first)
        stored = [m for m in model.blocks.modules() if isinstance(m, StoredLinear)]
        assert len(stored) == 2 * 12
        for name, p in model.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(len(name)))
        assert all(p.requires_grad == (".lora_" in name) for name, p in model.named_parameters())
        set_expert(model, "lip")
        arguments = inputs(config, "lip", 1, "cpu")
        outputs.append(model(**arguments))
        outputs[-1].sum().backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        assert "blocks.0.ffn.0.lora_A" in expert_state(model, "lip")
    assert torch.equal(*outputs)


def test_a_phase_that_trains_everything_refuses_the_setting():
    config = recipe("train.base_dtype=int8")
    with pytest.raises(UserError, match=r"train\.base_dtype=int8: the phase editor trains all weights"):
        store_frozen(build_backbone(config, "editor"), config.for_phase("editor"), "editor")


def test_storage_wider_than_the_products_is_refused():
    with pytest.raises(UserError, match=r"train\.base_dtype=fp32 .* is wider than train\.precision=bf16"):
        recipe("train.base_dtype=fp32", "train.precision=bf16")
