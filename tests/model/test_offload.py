"""Offloaded blocks compute the same bits, forwards and backwards, and only two of them are on the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xdub.config import check_phase, load_recipe
from xdub.dub.window import Window
from xdub.dub.window_sampler import WindowSampler, bands_of
from xdub.errors import UserError
from xdub.geometry import SAMPLES_PER_FRAME
from xdub.model.bundle import load_bundle
from xdub.model.frozen_base import store_frozen
from xdub.model.lora import set_expert
from xdub.model.offload import BlockOffload, backbone_on
from xdub.model.testing import add_experts, random_backbone, random_codec
from xdub.plan.rehearsal import inputs

SMALL = ("model.hidden_size=64", "model.num_heads=2", "video.size=32")


def recipe(*overrides: str):
    return load_recipe("tiny", [*SMALL, *overrides])


def with_experts(config):
    """Return an editor with two inactive experts, the same at every call."""
    model = random_backbone(config, "editor", random_codec(config.codec.channels))
    torch.manual_seed(0)
    add_experts(model, config)
    return model


def recorded(blocks: BlockOffload) -> list[tuple[int | None, int]]:
    """Return a list that gets (running block, copied block) of every copy from here on."""
    copies, fetch = [], blocks._fetch

    def recording(index: int) -> int:
        if index not in blocks._held:
            copies.append((blocks._current, index))
        return fetch(index)

    blocks._fetch = recording
    return copies


def editor(config, *, offload: bool):
    model = with_experts(config)
    return backbone_on(model, "bf16", "cpu", offload=offload)


def batch(config):
    generator = torch.Generator().manual_seed(0)
    values = inputs(config, "editor", 1, "cpu")
    return {
        name: torch.randn(value.shape, generator=generator) if value.ndim > 2 else value
        for name, value in values.items()
    }


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
@torch.inference_mode()
def test_two_evaluations_with_conditions_and_experts_have_the_same_bits(layers):
    config, outputs = recipe(f"model.num_layers={layers}"), []
    arguments = batch(config)
    z_t, t = arguments.pop("z_t"), arguments.pop("t")
    for offload in (False, True):
        model, frames = editor(config, offload=offload), []
        state = {name: value.clone() for name, value in model.state_dict().items()}
        for expert in (None, "lip", None):
            set_expert(model, expert)
            conditions = model.conditions(**arguments)
            frames += [model.velocity(z_t, t, conditions), model.velocity(z_t, t / 2, conditions)]
        outputs.append((frames, state))
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    (plain, before), (ours, offloaded) = outputs
    assert all(torch.equal(a, b) for a, b in zip(plain, ours, strict=True))
    assert not torch.equal(plain[0], plain[2])
    assert before.keys() == offloaded.keys()
    assert all(torch.equal(before[name], offloaded[name]) for name in before)


def test_the_device_holds_two_blocks_and_the_next_one_is_copied_while_a_block_runs():
    config = recipe("model.num_layers=5")
    model = random_backbone(config, "editor", random_codec(config.codec.channels))
    blocks = BlockOffload(model.blocks, torch.device("cpu"), torch.float32)
    blocks.rest()
    copies, running = recorded(blocks), []
    for n, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, n=n: running.append((n, sorted(blocks._held))))
    size = sum(p.nbytes for p in model.blocks[0].parameters())
    assert 2 * size <= blocks.device_bytes < 2.1 * size
    with torch.no_grad():
        for _ in range(2):
            model(**batch(config))
    # Only the first block is waited for; each other one is copied while the block before it runs.
    assert copies[0] == (None, 0)
    assert copies[1:] == [(n % 5, (n + 1) % 5) for n in range(10)]
    assert [n for n, _ in running] == [0, 1, 2, 3, 4] * 2
    assert all(n in held and len(held) == 2 for n, held in running)


@pytest.mark.parametrize("policy", ["full", "attention"])
@pytest.mark.parametrize("storage", [None, "int8"])
def test_gradients_of_adapters_have_the_same_bits_and_blocks_come_back_in_reverse(policy, storage):
    overrides = [f"train.base_dtype={storage}"] if storage else []
    config, gradients = recipe("model.num_layers=4", *overrides), []
    for offload in (False, True):
        model = with_experts(config)
        set_expert(model, "lip")
        store_frozen(model, config.for_phase("lip"), "lip")
        model.train().checkpointing = policy
        if offload:
            blocks = BlockOffload(model.blocks, torch.device("cpu"), torch.float32)
            blocks.rest()
            copies = recorded(blocks)
        for _ in range(2):
            model(**batch(config)).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    plain, ours = gradients
    assert plain.keys() == ours.keys() and all(".lip." in name for name in ours)
    assert all(torch.equal(plain[name], ours[name]) for name in plain)
    # Forwards 0 to 3, backwards from 3 to 0; the two last blocks of one direction are there for the next.
    assert [n for _, n in copies] == [0, 1, 2, 3, 1, 0, 2, 3, 1, 0]


def test_settings_that_exclude_each_other_are_one_error():
    for override, message in {
        "train.offload=blocks": r"train\.offload=blocks .* needs train\.activation_checkpointing=full",
        "train.offload=optimizer": r"train\.offload=optimizer .* needs train\.zero_stage of at least 1",
        "dub.offload=blocks dub.compile=true": r"dub\.offload=blocks needs dub\.compile=false",
        "pairs.offload=blocks pairs.compile=true": r"pairs\.offload=blocks needs pairs\.compile=false",
        "train.offload=blocks train.zero_stage=3": r"excludes train\.zero_stage=3",
    }.items():
        with pytest.raises(UserError, match=message):
            recipe(*override.split())
    config = recipe("train.offload=blocks", "train.activation_checkpointing=full")
    with pytest.raises(UserError, match=r"train\.offload=blocks: the phase editor trains all weights"):
        check_phase(config, "editor")


def test_where_blocks_are_is_no_part_of_a_recipes_identity():
    assert recipe("dub.offload=blocks", "pairs.offload=blocks").identity() == recipe().identity()


def test_a_dub_with_offloaded_blocks_has_the_same_frames():
    videos = []
    for where in ("none", "blocks"):
        bundle = load_bundle(generator=False, settings=(f"dub.offload={where}", "dub.sampler_steps=2"))
        recipe, frames = bundle.recipe, 13
        sampler = WindowSampler(
            bundle.editor,
            bundle.codec,
            bundle.audio_encoder,
            num_steps=recipe.dub.sampler_steps,
            bands=bands_of(recipe, bundle.experts),
        )
        size, random = recipe.video.size, np.random.default_rng(0)
        window = Window(
            frames=random.integers(0, 256, (frames, size, size, 3), dtype=np.uint8),
            sound=random.standard_normal(SAMPLES_PER_FRAME * (frames + 50)).astype(np.float32),
            noise=(0,),
        )
        videos += sampler([window])
    assert np.array_equal(*videos)
