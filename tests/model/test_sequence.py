"""A sample on several ranks has the velocity, the loss and the gradients that it has on one rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from xdub.diffusion.sampler import sample
from xdub.geometry import CodecGeometry
from xdub.model.checkpointing import POLICIES
from xdub.model.dit import DiTConfig, VideoDiT
from xdub.model.prompt import Prompt
from xdub.model.sequence import _GROUPS, ONE_RANK, SequenceGroup, join_sequence_group, self_attention
from xdub.model.wan.config import WanConfig
from xdub.model.wan.network import WanDiT
from xdub.train.testing import run_ranks
from xdub_kernels import Rope


@dataclass(frozen=True)
class Case:
    """A network, the size of its latents, and the ranks of a group; a frame of h x w latents has h w / 4 tokens."""

    size: tuple[int, int]
    ranks: int = 2
    masked: bool = False
    order: str = "target_first"
    policy: str = "none"
    wan: bool = False


CASES = {
    "editor": Case((8, 4)),
    "generator with padding": Case((6, 10), ranks=4, masked=True, policy="attention"),
    "reference first with padding": Case((6, 6), order="reference_first", policy="full"),
    "wan editor": Case((4, 6), order="reference_first", policy="attention", wan=True),
    "wan generator": Case((6, 6), ranks=4, masked=True, wan=True),
    "rank of padding alone": Case((2, 10), ranks=4),
}


def build(case: Case) -> VideoDiT | WanDiT:
    torch.manual_seed(0)
    sizes = dict(hidden_size=48, num_heads=4, num_layers=2, order=case.order, masked_input=case.masked)
    sizes |= dict(geometry=CodecGeometry(5, time=4, space=8), audio_dim=7)
    if case.wan:
        prompt = Prompt(rows=torch.randn(3, 6), padding=2)
        model: VideoDiT | WanDiT = WanDiT(WanConfig(text_dim=6, ffn_dim=50, **sizes), prompt)
    else:
        model = VideoDiT(DiTConfig(linear_skip=True, **sizes), torch.linspace(1.0, 0.2, 5))
    # Zero-initialised layers would hide the layers before them.
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.checkpointing = case.policy
    return model.train()


def inputs(case: Case) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    frames = 1 if case.masked else 3
    arguments: dict[str, Any] = dict(
        z_t=draw(2, 5, 3, *case.size),
        z_ref=draw(2, 5, frames, *case.size),
        t=torch.tensor([0.3, 0.8]),
        audio=draw(2, 26, 7),
        starts=torch.tensor([0, 2, 10]),
        motion_frames=torch.tensor([1, 0]),
        audio_enabled=torch.tensor([True, False]),
    )
    if case.masked:
        arguments["z_mask"] = draw(2, 5, 3, *case.size)
    return arguments


def step(case: Case, group: SequenceGroup) -> tuple[list[Tensor], int]:
    """Return the velocity, a sample of two steps, and the mean over the ranks of all gradients.

    The second result is the number of tokens of the rank.
    """
    model, arguments = build(case), inputs(case)
    model.share_sequence(group)
    lengths = []
    model.blocks[0].register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].shape[2]))
    velocity = model(**arguments)
    velocity.square().mean().backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    for gradient in gradients:
        # DeepSpeed averages over all ranks, whatever samples they share.
        dist.all_reduce(gradient)
        gradient /= dist.get_world_size()
    z = arguments.pop("z_t")
    del arguments["t"]
    with torch.no_grad():
        conditions = model.eval().conditions(**arguments)
        drawn = sample(lambda z, t: model.velocity(z, t, conditions), z, num_steps=2)
        if isinstance(model, WanDiT):
            times = torch.linspace(0.1, 0.9, z[0, 0].numel() // 4).expand(2, -1)
            drawn = drawn + model.velocity_from_text(z, times, torch.ones(2, 3, 6))
    return [velocity.detach(), drawn, *gradients], lengths[0]


def both(rank: int, world_size: int, cases: dict[str, Case]) -> dict[str, tuple[float, int]]:
    """Return for each case the largest relative difference from one rank, and the tokens of a rank."""
    groups = {n: join_sequence_group(n, rank=rank, world_size=world_size) for n in (2, world_size)}
    result = {}
    for name, case in cases.items():
        (shared, tokens), (alone, _) = step(case, groups[case.ranks]), step(case, ONE_RANK)
        error = max(
            float((x - y).norm() / y.norm().clamp_min(1e-6)) for x, y in zip(shared, alone, strict=True)
        )
        result[name] = error, tokens
    return result


def test_a_group_computes_velocity_sample_and_gradients_of_one_rank():
    assert {case.policy for case in CASES.values()} == set(POLICIES)
    for name, (error, tokens) in run_ranks(4, both, CASES).items():
        height, width = CASES[name].size
        assert tokens == -(-height * width // 4 // CASES[name].ranks), name
        assert error < 2e-5, name


def test_self_attention_of_a_group_compiles_without_a_graph_break(monkeypatch):
    def copy(received: Tensor, sent: Tensor, group: object) -> None:
        received.copy_(sent)

    monkeypatch.setattr(dist, "all_to_all_single", copy)
    monkeypatch.setitem(_GROUPS, "pair", None)
    q, k, v = torch.randn(3, 1, 3, 6, 2, 12).unbind()
    rope, group = Rope((2, 3, 4), 1), SequenceGroup(1, 2, "pair")

    def attend(q, k, v):
        return self_attention(q, k, v, rope, group, q_weight=None, k_weight=None, norm="head", spatial=True)

    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v), attend(q, k, v))
