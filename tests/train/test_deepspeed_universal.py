"""DeepSpeed's universal checkpoints load wrongly under ZeRO-3, so `xdub.train.state.pieces` has its own format.

A failure of this test means that DeepSpeed fixed the defect: then review docs/training.md.
"""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import torch
from torch import nn

from xdub.train.context import LocalContext
from xdub.train.deepspeed_setup import import_deepspeed


def engine(*, universal: bool) -> Any:
    """Return a ZeRO-3 engine with two groups of parameters that differ in weight decay, and with several sub-groups."""
    context = LocalContext()
    deepspeed = import_deepspeed(context.device)
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": free, "weight_decay": 0.0}]
    config = {
        "train_batch_size": 4,
        "train_micro_batch_size_per_gpu": 4,
        "zero_optimization": {"stage": 3, "sub_group_size": 64},
        "zero_allow_untested_optimizer": True,
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 10**9,
    }
    return deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(groups, lr=1e-2), config=config)[0]


def step(ds: Any, seed: int) -> None:
    batch = torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))
    ds.backward(ds(batch).pow(2).mean())
    ds.step()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return an engine after DeepSpeed's own conversion and load."""
    from deepspeed.checkpoint.ds_to_universal import main as convert

    folder = tmp_path_factory.mktemp("universal")
    ds = engine(universal=False)
    for seed in range(3):
        step(ds, seed)
    ds.save_checkpoint(str(folder), tag="ds")
    settings = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False}
    settings |= {"strict": True, "inject_missing_state": True}
    convert(
        argparse.Namespace(input_folder=str(folder / "ds"), output_folder=str(folder / "uni"), **settings)
    )
    again = engine(universal=True)
    again.load_checkpoint(str(folder), tag="uni")
    return again


def test_deepspeed_applies_the_first_groups_weight_decay_to_all_groups(loaded) -> None:
    assert [group["weight_decay"] for group in loaded.optimizer.optimizer.param_groups] == [0.1, 0.1]


def test_deepspeed_counts_one_step_for_every_sub_group(loaded) -> None:
    step(loaded, 3)
    states = loaded.optimizer.optimizer.state.values()
    assert len(states) > 2
    assert max(float(state["step"]) for state in states) == 3 + len(states), (
        "the count is 4 once DeepSpeed fixes the defect"
    )
