"""Model states of the plan agree with DeepSpeed's own estimates and shrink with the ZeRO stage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdub.config import TrainConfig, load_recipe
from xdub.plan.codec_cost import decoding_bytes, encoding_bytes, video_bytes
from xdub.plan.memory import memory, model_states
from xdub.plan.network import Parameters, count_parameters
from xdub.plan.rehearsal import Activations


def lean(**settings: object) -> TrainConfig:
    """Return the train section of recipe `tiny` with settings."""
    overrides = [f"train.{name}={value}" for name, value in settings.items()]
    return load_recipe("tiny", ["train.precision=bf16", *overrides]).for_phase("generator")


def trained(total: int, layer: int) -> Parameters:
    """A network of which every parameter is trained."""
    return Parameters(trained=total, frozen=0, block=layer, largest_layer=layer)


STAGES = [lean(zero_stage=stage) for stage in (0, 1, 2, 3)]
"""Train sections of all ZeRO stages, in bf16."""


@given(st.integers(10**6, 10**10), st.integers(1, 8), st.integers(1, 64))
def test_model_states_agree_with_deepspeeds_estimates(total, per_node, nodes):
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    layer = total // 100
    cluster = dict(num_gpus_per_node=per_node, num_nodes=nodes, cpu_offload=False)
    _, two = estimate_zero2_model_states_mem_needs(total, **cluster)
    _, three, _ = estimate_zero3_model_states_mem_needs(total, layer, cpu_offload_params=False, **cluster)
    for stage, estimate in ((2, two), (3, three)):
        ours = model_states(trained(total, layer), STAGES[stage], per_node * nodes)
        assert ours.total == pytest.approx(estimate, rel=0.05)


def test_every_zero_stage_shards_one_thing_more():
    count = trained(10**9, 10**7)
    states = [model_states(count, train, 8) for train in STAGES]
    assert states[1].optimizer == states[0].optimizer / 8
    assert states[2].gradients == pytest.approx(states[0].gradients / 8)
    assert states[3].weights < states[2].weights / 4
    assert [s.total for s in states] == sorted((s.total for s in states), reverse=True)


def test_an_expert_needs_no_optimizer_for_the_editor_under_it():
    recipe = load_recipe("xdub-1b")
    nothing = Activations(kept=0, peak=0)
    editor, lip = (
        memory(recipe, phase, count_parameters(recipe, phase), nothing, 32) for phase in ("editor", "lip")
    )
    assert lip.weights > editor.weights
    assert lip.optimizer < 0.2 * editor.optimizer
    # Wan's decoder in bf16, 13 frames of 512 px: the states of four latents, and one block with gradients.
    assert 12e9 < lip.activations_working < 13e9
    # Without activations, decoding a strip of 77 frames has the largest peak, and without strips encoding them.
    assert editor.activations_working == decoding_bytes(recipe, 20) + 2 * video_bytes(recipe, 77)
    count, quiet = count_parameters(recipe, "editor"), load_recipe("xdub-1b", ["train.sample_every=0"])
    encoding = encoding_bytes(recipe, 77) + video_bytes(recipe, 77)
    assert memory(quiet, "editor", count, nothing, 32).activations_working == encoding
    assert 2e9 < encoding < 2.5e9


def test_a_strip_needs_room_for_the_largest_layer_beside_its_average():
    nothing = Activations(kept=0, peak=0)
    recipe, count = load_recipe("tiny", ["train.sample_every=5"]), trained(10**9, 10**8)
    assert memory(recipe, "editor", count, nothing, 1).activations_working == 4 * 10**8
    still = load_recipe("tiny", ["train.sample_every=5", "train.ema=0"])
    assert memory(still, "editor", count, nothing, 1).activations_working < 10**8
