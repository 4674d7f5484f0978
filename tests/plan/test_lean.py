"""Predicted bytes of weights, optimizer and activations against those that the real engine holds on a CPU."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from xdub.config import load_recipe
from xdub.model.build import build_backbone
from xdub.model.frozen_base import store_frozen
from xdub.model.lora import add_expert
from xdub.model.offload import BlockOffload
from xdub.plan.check import check
from xdub.plan.memory import memory, model_states, optimizer_bytes
from xdub.plan.network import count_parameters
from xdub.plan.phase_plan import communication_bytes
from xdub.plan.rehearsal import Activations, inputs, meta_model
from xdub.train.context import LocalContext
from xdub.train.engine import Engine

SIZES = (("model.num_layers=2", "model.hidden_size=96"), ("model.num_layers=3", "model.hidden_size=192"))
VARIANTS = {
    "plain": (),
    "int8 base": ("train.base_dtype=int8",),
    "fp8 base and 8-bit moments": ("train.base_dtype=fp8", "train.optimizer=adamw8bit"),
    "blocks": ("train.offload=blocks", "train.base_dtype=int8"),
    "optimizer": ("train.offload=optimizer", "train.zero_stage=1"),
    "ZeRO-3": ("train.zero_stage=3", "train.optimizer=adamw8bit", "train.base_dtype=int8"),
}
SMALL = (
    "train.precision=bf16", "train.ema=0", "train.micro_batch=1", "train.global_batch=1", "video.size=64",
    "train.activation_checkpointing=full",
)  # fmt: skip


def bytes_of(tensors) -> int:
    """Return the bytes of all storages under tensors, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def offload_of(module) -> BlockOffload:
    """Return the offload whose hook a network's first block has."""
    (hook,) = (h for h in module.blocks[0]._forward_pre_hooks.values() if isinstance(h, partial))
    return hook.func.__self__


def measured(recipe) -> tuple[int, int]:
    """Return the bytes of weights on the device, and of fp32 masters and moments, of the engine of a lip expert."""
    train = recipe.for_phase("lip")
    model = build_backbone(recipe, "lip", seed=0)
    add_expert(model, "lip", recipe.lora)
    store_frozen(model, train, "lip")
    engine = Engine.build(model, train, device=LocalContext().device)
    module, elsewhere, weights = engine.model.module, set(), 0
    if train.offloads("blocks"):
        blocks = offload_of(module)
        elsewhere = {flat.untyped_storage().data_ptr() for flat in blocks._flats}
        weights = blocks.device_bytes
    tensors = [getattr(t, "ds_tensor", t) for t in (*module.parameters(), *module.buffers())]
    weights += bytes_of(t for t in tensors if t.untyped_storage().data_ptr() not in elsewhere)
    optimizer = engine.model.optimizer
    states = getattr(optimizer, "optimizer", optimizer).state.items()
    moments = [value for p, state in states for key, value in state.items() if key != "step"]
    return weights, bytes_of([*moments, *(p for p, _ in states)])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_predicted_weights_and_optimizer_are_within_5_percent_of_measured_ones(variant, size):
    recipe = load_recipe("tiny", [*SMALL, *size, *VARIANTS[variant]])
    train, count = recipe.for_phase("lip"), count_parameters(recipe, "lip")
    states = model_states(count, train, 1)
    weights, optimizer = measured(recipe)
    assert states.weights == pytest.approx(weights, rel=0.05)
    assert optimizer_bytes(count, train, 1) == pytest.approx(optimizer, rel=0.05)


@pytest.mark.parametrize("offload", ["none", "optimizer"])
def test_the_fp32_sum_of_micro_batches_is_counted_where_the_optimizer_is_offloaded_too(offload):
    stage = ("train.zero_stage=2", "train.global_batch=2", f"train.offload={offload}")
    recipe = load_recipe("tiny", [*SMALL, *SIZES[0], *stage])
    train, count = recipe.for_phase("lip"), count_parameters(recipe, "lip")
    model = build_backbone(recipe, "lip", seed=0)
    add_expert(model, "lip", recipe.lora)
    engine = Engine.build(model, train, device=LocalContext().device)
    assert engine.micro_batches == 2
    engine.backward(engine.model(**inputs(recipe, "lip", 1, "cpu")).sum(), last=False)
    summed = bytes_of(group.flat_partition for group in engine.model.optimizer.averaged_gradients.values())
    assert summed == pytest.approx(4 * count.trained, rel=0.01)
    # Without offload, gradients in bf16 are counted beside the sum.
    others = 0 if offload == "optimizer" else 2 * count.trained
    assert model_states(count, train, 1).gradients - others == pytest.approx(summed, rel=0.01)
    buffer = engine.model.optimizer.reduce_bucket_size * 2
    assert memory(recipe, "lip", count, Activations(kept=0, peak=0), 1).buffers == buffer == 2 * count.trained


@pytest.mark.parametrize(("variant", "size"), zip(["int8 base", "blocks"], SIZES, strict=True))
def test_predicted_activations_are_within_5_percent_of_measured_ones(variant, size):
    recipe = load_recipe("tiny", [*SMALL, *size, *VARIANTS[variant], "train.precision=fp32"])
    row = check(recipe, "lip", "full", torch.device("cpu"))
    assert abs(row.difference) < 0.05, f"{row.predicted} predicted, {row.measured} measured"


def test_zero_3_neither_gathers_nor_sends_compact_storage():
    recipe = load_recipe(
        "tiny", [*SMALL, *SIZES[0], "train.zero_stage=3", "train.workers=2", "train.global_batch=2"]
    )
    train = recipe.for_phase("lip")
    int8 = replace(recipe, train=replace(recipe.train, base_dtype="int8"))
    model = meta_model(int8, "lip")
    count, sharded = count_parameters(int8, "lip"), sum(p.numel() for p in model.parameters())
    assert sharded < count.total == count_parameters(recipe, "lip").total
    micro_batches = train.global_batch // (2 * train.micro_batch_of(2))
    expected = micro_batches * (2 * 2 * sharded + 2 * count.trained)
    assert communication_bytes(int8, "lip", count) == expected
    nothing = Activations(kept=0, peak=0)
    buffers = [
        memory(each, "lip", count_parameters(each, "lip"), nothing, 2).buffers for each in (recipe, int8)
    ]
    assert buffers[0] - buffers[1] == 2 * (count.total - sharded)
