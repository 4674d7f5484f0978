"""The three policies of activation checkpointing have one result and differ in memory and time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from xdub.geometry import CodecGeometry
from xdub.model.checkpointing import POLICIES, run_block
from xdub.model.dit import DiTConfig, VideoDiT
from xdub.plan.rehearsal import LiveBytes

FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"
LAYERS = 3


def build(policy: str) -> VideoDiT:
    torch.manual_seed(0)
    config = DiTConfig(
        geometry=CodecGeometry(5, time=4, space=8),
        masked_input=False,
        audio_dim=7,
        linear_skip=True,
        hidden_size=32,
        num_heads=2,
        num_layers=LAYERS,
    )
    model = VideoDiT(config).train()
    for parameter in model.parameters():  # zero-initialised layers would hide the layers before them
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.checkpointing = policy
    return model


def inputs(side: int = 24) -> dict[str, Any]:
    """Return inputs; with side 24 a frame has 144 tokens, so torch's fused attention runs in both self-attentions."""
    draw = lambda *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(1))  # noqa: E731
    return dict(
        z_t=draw(1, 5, 3, side, side),
        z_ref=draw(1, 5, 3, side, side),
        t=torch.tensor([0.3]),
        audio=draw(1, 26, 7),
        starts=torch.tensor([0, 2, 10]),
    )


class Calls(TorchDispatchMode):
    """Counter of the calls of each operator."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[func.name().split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def step(model: VideoDiT, side: int = 24) -> tuple[torch.Tensor, list[torch.Tensor]]:
    loss = model(**inputs(side)).square().mean()
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("policy", ["full", "attention"])
def test_loss_and_gradients_are_the_same_to_the_bit(policy):
    loss, gradients = step(build("none"))
    other_loss, other = step(build(policy))
    assert torch.equal(loss, other_loss)
    assert len(gradients) == len(other) > 50
    assert all(torch.equal(a, b) for a, b in zip(gradients, other, strict=True))


@pytest.mark.parametrize(("policy", "times"), [("none", 1), ("full", 2), ("attention", 1)])
def test_attention_runs_twice_only_where_its_output_is_not_kept(policy, times):
    with Calls() as calls:
        step(build(policy))
    assert calls.count[FUSED] == 2 * LAYERS * times
    assert calls.count[f"{FUSED}_backward"] == 2 * LAYERS


def test_everything_but_the_self_attention_is_computed_again():
    """Linear layers run as often under `attention` as under `full`."""
    counts = {}
    for policy in POLICIES:
        with Calls() as calls:
            step(build(policy))
        counts[policy] = calls.count["aten::addmm"]
    assert counts["full"] == counts["attention"] > counts["none"]


def test_each_policy_keeps_less_memory_than_the_policy_before():
    kept = {}
    for policy in POLICIES:
        model, arguments = build(policy), inputs()
        with LiveBytes() as live:
            out = model(**arguments)
        kept[policy] = live.now
        del out
    assert kept["none"] > 2 * kept["attention"]
    assert kept["attention"] > kept["full"]
    # A block has two attentions; each keeps an output of the tokens' size and one number a token and head.
    tokens = 6 * 144
    assert kept["attention"] - kept["full"] == pytest.approx(LAYERS * 2 * tokens * 4 * (32 + 2), rel=0.05)


def test_evaluation_does_not_checkpoint():
    model = build("full").eval()
    with Calls() as calls:
        model(**inputs()).sum().backward()
    assert calls.count[FUSED] == 2 * LAYERS


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the kernels run compiled")
def test_the_fused_kernels_keep_their_attention_too():
    """Interpret the path of a GPU, where one operator computes norm, rotation and attention."""
    from xdub_kernels import Rope, shifted_rope_attention
    from xdub_kernels.dispatch import rehearsing_gpu

    weight = torch.randn(48, 16, generator=torch.Generator().manual_seed(0))

    def block(x: torch.Tensor) -> torch.Tensor:
        q, k, v = (x @ weight.T).view(1, 8, 3, 1, 16).unbind(2)
        return x + shifted_rope_attention(q, k, v, Rope((1, 2, 2), 1)).flatten(2)

    results = {}
    for policy in POLICIES:
        x = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with rehearsing_gpu(), Calls() as calls:
            run_block(policy, block, x).square().sum().backward()
        assert calls.count["xdub_kernels::shifted_rope_attention"] == (2 if policy == "full" else 1)
        assert calls.count["xdub_kernels::shifted_rope_attention_backward"] == 1
        results[policy] = x.grad
    assert torch.equal(results["full"], results["none"])
    assert torch.equal(results["attention"], results["none"])
