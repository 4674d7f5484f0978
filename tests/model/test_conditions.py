"""Conditions that are computed once for all noise levels yield the same steps as conditions computed at each level."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub.config import LoraConfig
from xdub.geometry import CodecGeometry
from xdub.model.dit import DiTConfig, VideoDiT
from xdub.model.lora import add_expert, set_expert

shapes = st.fixed_dictionaries(
    {
        "masked": st.booleans(),
        "order": st.sampled_from(["target_first", "reference_first"]),
        "linear_skip": st.booleans(),
        "text_tokens": st.integers(1, 3),
        "text_rows": st.sampled_from([0, 1, 4]),  # rows of a text encoder; 0 = the null prompt
        "heads": st.integers(1, 3),
        "latents": st.integers(1, 4),
        "batch": st.integers(1, 3),
        "motion": st.integers(0, 4),
        "motion_by_sample": st.booleans(),
        "silent": st.booleans(),
        "seed": st.integers(0, 99),
    }
)


def build(shape: dict) -> VideoDiT:
    torch.manual_seed(shape["seed"])
    config = DiTConfig(
        geometry=CodecGeometry(3, time=4, space=8),
        masked_input=shape["masked"],
        audio_dim=7,
        hidden_size=8 * shape["heads"],
        num_heads=shape["heads"],
        num_layers=2,
        text_tokens=shape["text_tokens"],
        text_dim=5 if shape["text_rows"] else None,
        order=shape["order"],
        linear_skip=shape["linear_skip"],
    )
    model = VideoDiT(config, torch.tensor([1.0, 0.5, 0.2])).eval()
    for parameter in model.parameters():  # zero-initialised layers would hide the layers before them
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.requires_grad_(False)


def inputs(shape: dict) -> tuple[dict, dict]:
    """Return the inputs that depend on the noise level, and those that do not."""
    batch, f = shape["batch"], shape["latents"]
    generator = torch.Generator().manual_seed(shape["seed"])
    draw = lambda *size: torch.randn(*size, generator=generator)  # noqa: E731
    motion = min(shape["motion"], f)
    constant = {
        "z_ref": draw(batch, 3, 1 if shape["masked"] else f, 4, 2),
        "audio": draw(batch, 8 * f + 8, 7),
        "starts": 8 * torch.arange(f),
        "z_mask": draw(batch, 3, f, 4, 2) if shape["masked"] else None,
        "motion_frames": torch.arange(batch).clamp(max=motion) if shape["motion_by_sample"] else motion,
        "audio_enabled": torch.arange(batch) % 2 == 0 if shape["silent"] else None,
        "text": draw(batch, shape["text_rows"], 5) if shape["text_rows"] else None,
    }
    return {"z_t": draw(batch, 3, f, 4, 2), "t": torch.rand(batch, generator=generator)}, constant


def compare(model: VideoDiT, shape: dict, level: dict, constant: dict) -> None:
    expected = model(**level, **constant)
    result = model.velocity(**level, conditions=model.conditions(**constant))
    if not shape["masked"] and (shape["text_rows"] or shape["text_tokens"]) > 1:
        assert torch.equal(result, expected)  # the same operations
    else:  # split products: fp32 rounding
        torch.testing.assert_close(result, expected, atol=3e-5, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_a_step_from_prepared_conditions_equals_the_step_from_all_inputs(shape):
    model = build(shape)
    level, constant = inputs(shape)
    compare(model, shape, level, constant)
    other = {"z_t": level["z_t"] + 1, "t": level["t"] / 2}
    conditions = model.conditions(**constant)
    first = model.velocity(**level, conditions=conditions)
    model.velocity(**other, conditions=conditions)
    # A step does not change the conditions.
    assert torch.equal(model.velocity(**level, conditions=conditions), first)


def test_every_expert_has_conditions_of_its_own():
    shape = dict(
        masked=False, order="target_first", linear_skip=True, text_tokens=1, text_rows=0, heads=2, latents=3,
        batch=2, motion=1, motion_by_sample=False, silent=False, seed=3,
    )  # fmt: skip
    model = build(shape)
    for name in ("lip", "texture"):
        add_expert(model, name, LoraConfig(rank=2, alpha=2, targets=("qkv", "q", "kv", "out")))
    for key, parameter in model.named_parameters():
        if ".lora_B." in key:
            parameter.data += torch.randn_like(parameter)
    level, constant = inputs(shape)
    set_expert(model, None)
    stale = model.conditions(**constant)
    for name in ("lip", "texture", None):
        set_expert(model, name)
        compare(model, shape, level, constant)
        fresh = model.velocity(**level, conditions=model.conditions(**constant))
        assert torch.equal(model.velocity(**level, conditions=stale), fresh) == (name is None)


@pytest.mark.parametrize("tokens", [1, 3])
def test_training_attends_to_prompts_of_any_length_so_that_all_parameters_learn(tokens):
    shape = dict(
        masked=True, order="target_first", linear_skip=True, text_tokens=tokens, text_rows=0, heads=2, latents=2,
        batch=1, motion=0, motion_by_sample=False, silent=False, seed=0,
    )  # fmt: skip
    model = build(shape).train().requires_grad_(True)
    level, constant = inputs(shape)
    model(**level, **constant).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_in_bf16_steps_differ_by_rounding_alone():
    shape = dict(
        masked=True, order="target_first", linear_skip=True, text_tokens=1, text_rows=0, heads=2, latents=3,
        batch=2, motion=1, motion_by_sample=False, silent=False, seed=1,
    )  # fmt: skip
    model, (level, constant) = build(shape), inputs(shape)
    exact = model(**level, **constant)
    model.bfloat16()
    cached = model.velocity(**level, conditions=model.conditions(**constant))
    uncached = model(**level, **constant)
    assert (cached - exact).abs().mean() < 1.5 * (uncached - exact).abs().mean()


def test_an_error_names_conditions_that_do_not_fit_the_model():
    shape = dict(
        masked=True, order="target_first", linear_skip=True, text_tokens=1, text_rows=0, heads=1, latents=1,
        batch=1, motion=0, motion_by_sample=False, silent=False, seed=0,
    )  # fmt: skip
    _, constant = inputs(shape)
    with pytest.raises(ValueError, match="z_mask"):
        build(shape).conditions(**constant | {"z_mask": None})
