"""Predicted bytes of activations agree with what an allocator records."""

from __future__ import annotations

import pytest
import torch

from xdub.config import load_recipe
from xdub.model.checkpointing import POLICIES
from xdub.plan.check import check
from xdub.plan.flops import recomputed, sample_flops
from xdub.plan.network import count_network
from xdub.plan.rehearsal import LiveBytes, activations, inputs, meta_model, rehearse

SHAPES = (
    ("tiny", "generator", ("model.num_layers=2", "train.micro_batch=2", "train.precision=bf16")),
    ("tiny", "lip", ("model.num_layers=1", "train.micro_batch=1")),
)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("name", "phase", "overrides"), SHAPES)
def test_predicted_peaks_are_within_15_percent_of_measured_ones(name, phase, overrides, policy):
    row = check(load_recipe(name, overrides), phase, policy, torch.device("cpu"))
    assert row.measured > 1e6
    assert abs(row.difference) < 0.15, (
        f"{row.predicted / 1e6:.1f} MB predicted, {row.measured / 1e6:.1f} measured"
    )


@pytest.mark.parametrize(("phase", "policy"), [("editor", "attention"), ("lip", "none")])
def test_every_block_after_the_second_keeps_as_much_as_the_second(phase, policy):
    recipe = load_recipe("small", ["model.num_layers=4"])
    whole, short = rehearse(recipe, phase, policy, 1), activations(recipe, phase, policy, 1)
    assert short.kept == pytest.approx(whole.kept, rel=0.01)
    assert short.peak == pytest.approx(whole.peak, rel=0.03)


def test_activations_grow_in_proportion_to_the_micro_batch():
    recipe = load_recipe("small")
    one, four = (activations(recipe, "editor", "attention", batch) for batch in (1, 4))
    assert four.kept == pytest.approx(4 * one.kept, rel=0.02)
    assert four.peak == pytest.approx(4 * one.peak, rel=0.02)


def test_each_policy_keeps_less_than_the_one_before_at_the_papers_size():
    recipe = load_recipe("xdub-1b")
    none, full, attention = (activations(recipe, "editor", policy, 1) for policy in POLICIES)
    assert none.peak > 5 * attention.peak > 5 * full.peak
    # Two outputs of the tokens' size in bf16 a block, and the log-sum-exp of twelve heads.
    difference = 18 * 2 * 40_960 * (1536 * 2 + 12 * 4)
    assert attention.kept - full.kept == pytest.approx(difference, rel=0.01)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_flops_that_checkpointing_repeats_are_those_that_torch_counts(policy):
    """On the meta device no attention is fused, so no policy can keep its result and all policies repeat it."""
    from torch.utils.flop_counter import FlopCounterMode

    recipe = load_recipe("small", ["model.num_layers=2"])
    model = meta_model(recipe, "editor")
    model.checkpointing = policy
    with FlopCounterMode(display=False) as counter:
        model(**inputs(recipe, "editor", 1, "meta")).sum().backward()
    network = count_network(recipe, "editor")
    on_meta = "full" if policy == "attention" else policy
    repeated = sum(products.forward for products in network.products if recomputed(products, on_meta))
    assert sample_flops(network) + repeated == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_live_bytes_follow_allocations_and_their_release():
    with LiveBytes() as live:
        a = torch.empty(1000, dtype=torch.uint8)
        view = a[10:]
        b = a + 1
        assert (live.now, live.peak) == (2000, 2000)
        del a, b
        assert live.now == 1000  # the view keeps the storage
        del view
        assert (live.now, live.peak) == (0, 2000)
