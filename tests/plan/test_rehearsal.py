"""What the rehearsal predicts is what the allocator gives out."""

from __future__ import annotations

import pytest
import torch

from xdub.config import load_recipe
from xdub.model.checkpointing import POLICIES
from xdub.plan.check import check
from xdub.plan.flops import recomputed, sample_flops
from xdub.plan.live_bytes import LiveBytes
from xdub.plan.products import products
from xdub.plan.rehearsal import activations, inputs, meta_model, rehearse

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
def test_a_deep_network_is_two_blocks_and_more_of_the_same(phase, policy):
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
def test_what_checkpointing_computes_again_is_what_torch_counts(policy):
    """Attention on the meta device is spelled out by torch, so nothing is kept of it: `full` repeats it, too."""
    from torch.utils.flop_counter import FlopCounterMode

    recipe = load_recipe("small", ["model.num_layers=2"])
    model = meta_model(recipe, "editor")
    model.checkpointing = policy
    with FlopCounterMode(display=False) as counter:
        model(**inputs(recipe, "editor", 1, "meta")).sum().backward()
    again = sum(p.forward for p in products(recipe, "editor") if recomputed(p, policy))
    if policy == "attention":
        again += sum(
            p.forward
            for p in products(recipe, "editor")
            if recomputed(p, "full") and not recomputed(p, policy)
        )
    assert sample_flops(recipe, "editor") + again == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_live_bytes_follow_what_is_made_and_let_go_of():
    with LiveBytes() as live:
        a = torch.empty(1000, dtype=torch.uint8)
        view = a[10:]
        b = a + 1
        assert (live.now, live.peak) == (2000, 2000)
        del a, b
        assert live.now == 1000  # the view holds on to it
        del view
        assert (live.now, live.peak) == (0, 2000)
