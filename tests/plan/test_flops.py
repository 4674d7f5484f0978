"""The plan's FLOPs are those that torch counts while the model runs."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from xdub.config import PHASES, Recipe, load_recipe, shipped_recipes
from xdub.plan.flops import sample_flops, train_step_flops
from xdub.plan.products import products
from xdub.plan.rehearsal import inputs, meta_model


def counted(recipe: Recipe, phase: str) -> tuple[int, int]:
    """FLOP forwards, and forwards and backwards, of one sample on the meta device."""
    model = meta_model(recipe, phase)
    with FlopCounterMode(display=False) as counter:
        out = model(**inputs(recipe, phase, 1, "meta"))
        forward = counter.get_total_flops()
        out.sum().backward()
    return forward, counter.get_total_flops()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", shipped_recipes())
def test_a_step_at_the_recipes_own_size_has_the_flops_that_torch_counts(name, phase):
    recipe = load_recipe(name, ["model.num_layers=1"])
    forward, both = counted(recipe, phase)
    assert sum(p.forward for p in products(recipe, phase)) == pytest.approx(forward, rel=0.01)
    assert sample_flops(recipe, phase) == pytest.approx(both, rel=0.01)
    assert train_step_flops(recipe, phase) == recipe.for_phase(phase).global_batch * sample_flops(
        recipe, phase
    )


odd_shapes = st.fixed_dictionaries(
    {
        "model.num_heads": st.sampled_from([1, 3, 5]),
        "model.num_layers": st.integers(1, 3),
        "model.ffn_ratio": st.sampled_from([0.5, 1.75, 4.0]),
        "model.text_tokens": st.integers(1, 9),
        "model.order": st.sampled_from(["target_first", "reference_first"]),
        "video.size": st.sampled_from([16, 48, 80]),
        "codec.channels": st.integers(1, 7),
        "audio.dim": st.integers(1, 33),
        "lora.rank": st.integers(1, 5),
        "lora.targets": st.sampled_from(
            ["[qkv]", "[ffn.2]", "[q, out]", "[kv]", "[qkv, q, kv, out, ffn.0, ffn.2]"]
        ),
    }
)


@settings(max_examples=8, phases=set(Phase) - {Phase.shrink})  # every example builds a model
@given(odd_shapes, st.sampled_from(PHASES), st.integers(1, 5))
def test_odd_shapes_are_counted_as_torch_counts_them(numbers, phase, k):
    overrides = [f"{key}={value}" for key, value in numbers.items()]
    overrides += [
        f"model.hidden_size={6 * numbers['model.num_heads']}",
        f"phases.{phase}.window={4 * k + 1}",
        f"phases.{phase}.motion_frames=1",
    ]
    recipe = load_recipe("tiny", overrides)
    forward, both = counted(recipe, phase)
    assert sum(p.forward for p in products(recipe, phase)) == pytest.approx(forward, rel=0.01)
    assert sample_flops(recipe, phase) == pytest.approx(both, rel=0.01)
