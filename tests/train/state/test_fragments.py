"""The layout of DeepSpeed's fp32 weights: read from public attributes, and refused when the weights differ from it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from xdub.train.state.fragments import find_fragments, refresh_weights

SUPPORTED = "keeps its fp32 weights elsewhere than DeepSpeed 0.19.0 to 0.19.8"


def engine(rank: int, world_size: int, gap: int) -> tuple[SimpleNamespace, dict[str, nn.Parameter]]:
    """Return an engine of ZeRO 2: two weights in one bf16 buffer, with ``gap`` unused elements between them."""
    values = torch.arange(12 + gap, dtype=torch.float32)
    whole = values.to(torch.bfloat16)
    trained = {"a": nn.Parameter(whole[:5]), "b": nn.Parameter(whole[5 + gap : 11 + gap].view(2, 3))}
    size = len(whole) // world_size
    own = nn.Parameter(values[rank * size : (rank + 1) * size].clone())
    optimizer = SimpleNamespace(
        bit16_groups=[list(trained.values())],
        bit16_groups_flat=[whole],
        optimizer=torch.optim.AdamW([own]),
    )
    return SimpleNamespace(optimizer=optimizer, zero_optimization_stage=lambda: 2), trained


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("gap", [0, 4])
def test_the_fragments_of_all_ranks_cover_every_weight_once(world_size: int, gap: int) -> None:
    parts: dict[str, list[tuple[int, Tensor]]] = {"a": [], "b": []}
    for rank in range(world_size):
        ds, trained = engine(rank, world_size, gap)
        for fragment in find_fragments(ds, trained, rank, world_size):
            parts[fragment.name].append((fragment.start, fragment.master))
    for name, pieces in parts.items():
        assert [start for start, _ in pieces] == [
            sum(len(master) for _, master in pieces[:i]) for i in range(len(pieces))
        ]
        whole = torch.cat([master for _, master in pieces])
        assert whole.equal(trained[name].detach().flatten().float())


def test_a_layout_that_differs_from_the_weights_is_refused() -> None:
    ds, trained = engine(0, 2, 0)
    ds.optimizer.optimizer.param_groups[0]["params"][0].data[2] += 1
    with pytest.raises(RuntimeError, match=SUPPORTED):
        find_fragments(ds, trained, 0, 2)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_an_optimizer_without_the_expected_attributes_is_refused(stage: int) -> None:
    ds = SimpleNamespace(optimizer=SimpleNamespace(), zero_optimization_stage=lambda: stage)
    trained = {"a": nn.Parameter(torch.zeros(3))}
    with pytest.raises(RuntimeError, match=SUPPORTED):
        find_fragments(ds, trained, 0, 1)
    with pytest.raises(RuntimeError, match=SUPPORTED):
        refresh_weights(ds, trained, [])
