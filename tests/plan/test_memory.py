"""Parameters and model states of the plan against the network itself and against DeepSpeed's own estimates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdub.config import PHASES, load_recipe, shipped_recipes
from xdub.plan.memory import largest_layer, memory, model_states
from xdub.plan.parameters import Parameters, parameters
from xdub.plan.rehearsal import Activations, meta_model


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", shipped_recipes())
def test_parameters_are_those_of_the_network_to_the_last_one(name, phase):
    recipe = load_recipe(name)
    model, count = meta_model(recipe, phase), parameters(recipe, phase)
    assert count.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count.frozen == sum(p.numel() for p in model.parameters() if not p.requires_grad)
    if not count.frozen:
        assert count.block == sum(p.numel() for p in model.blocks[0].parameters())
        assert largest_layer(recipe) == max(
            sum(p.numel() for p in module.parameters(recurse=False)) for module in model.modules()
        )


def test_other_numbers_of_a_model_are_counted_too():
    recipe = load_recipe(
        "tiny", ["model.text_dim=40", "model.text_tokens=7", "model.ffn_ratio=2.5", "lora.targets=[q, ffn.2]"]
    )
    for phase in ("generator", "lip"):
        model, count = meta_model(recipe, phase), parameters(recipe, phase)
        assert count.total == sum(p.numel() for p in model.parameters())
        assert count.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


@given(st.integers(10**6, 10**10), st.integers(1, 8), st.integers(1, 64))
def test_model_states_agree_with_deepspeeds_estimates(total, per_node, nodes):
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    layer = total // 100
    where = dict(num_gpus_per_node=per_node, num_nodes=nodes, cpu_offload=False)
    _, two = estimate_zero2_model_states_mem_needs(total, **where)
    _, three, _ = estimate_zero3_model_states_mem_needs(total, layer, cpu_offload_params=False, **where)
    count = Parameters(trained=total, frozen=0, block=layer)
    for stage, estimate in ((2, two), (3, three)):
        ours = model_states(count, stage=stage, gpus=per_node * nodes, precision="bf16", largest_layer=layer)
        assert ours.total == pytest.approx(estimate, rel=0.05)


def test_every_stage_shards_one_thing_more():
    count = Parameters(trained=10**9, frozen=0, block=10**7)
    common = dict(gpus=8, precision="bf16", largest_layer=10**7)
    states = [model_states(count, stage=stage, **common) for stage in (0, 1, 2, 3)]
    assert states[1].optimizer == states[0].optimizer / 8
    assert states[2].gradients == pytest.approx(states[0].gradients / 8)
    assert states[3].weights < states[2].weights / 4
    assert [s.total for s in states] == sorted((s.total for s in states), reverse=True)


def test_an_expert_needs_no_optimizer_for_the_editor_under_it():
    recipe = load_recipe("xdub-1b")
    kept = Activations(kept=0, peak=0)
    editor, lip = (memory(recipe, phase, kept, 32) for phase in ("editor", "lip"))
    assert lip.weights > editor.weights
    assert lip.optimizer < 0.2 * editor.optimizer
    assert lip.activations_working > 40e9  # Wan's decoder with gradients, fp32, 13 frames of 512 px
    assert editor.activations_working == 0
