"""Run the real engine in several gloo processes; test_world_size.py calls this script once for all its cases.

Every case is a stretch of training from a checkpoint (or from nothing) at some world size and ZeRO stage. Cases of one
world size share their ranks, but for a case that continues another one, which starts in new processes. The script
prints one JSON object: case -> {losses, weights, average} as exact floats.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from xdub.config import load_recipe
from xdub.train.engine import Engine
from xdub.train.testing import run_ranks

GLOBAL_BATCH, STEPS, SAVED_AT = 8, 6, 3


def network(*, frozen: bool) -> nn.Module:
    """Build a network of sizes that no world size divides, with one layer that can be frozen as under an adapter."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 33), nn.GELU(), nn.Linear(33, 3))
    model[0].requires_grad_(not frozen)
    return model


def train_rank(rank: int, world_size: int, case: dict[str, Any]) -> dict[str, Any]:
    """Train one rank of a case."""
    settings = {
        "zero_stage": case["stage"],
        "precision": case["precision"],
        "global_batch": GLOBAL_BATCH,
        "micro_batch": 1,  # several micro batches a step, but for eight ranks
        "workers": world_size,
        "warmup": 2,
    }
    train = load_recipe("tiny", [f"train.{k}={v}" for k, v in settings.items()]).for_phase("generator")
    model = network(frozen=case["frozen"])
    engine = Engine.build(model, train, device=torch.device("cpu"), rank=rank, world_size=world_size)
    folder, dtype = Path(case["folder"]), next(engine.model.parameters()).dtype
    if case["resume"]:
        engine.load(folder, SAVED_AT)
    losses = []
    for step in range(engine.global_step, STEPS):
        batch = torch.randn(GLOBAL_BATCH, 7, generator=torch.Generator().manual_seed(step)).to(dtype)
        parts: list[float] = []
        mine = batch.chunk(world_size)[rank].split(1)
        for i, x in enumerate(mine):
            loss = engine.model(x).float().pow(2).mean()
            engine.backward(loss, last=i == len(mine) - 1)
            parts.append(loss.item())
        gathered: list[Any] = [None] * world_size
        dist.all_gather_object(gathered, parts)
        losses.append(sum(loss for part in gathered for loss in part) / GLOBAL_BATCH)
        assert engine.step()
        if step + 1 == SAVED_AT and not case["resume"]:
            engine.save(folder)
    weights, average = engine.trained_state(ema=False), engine.trained_state()
    if rank > 0:
        return {}  # rank 0 alone has the weights
    flat = [torch.cat([v.flatten() for v in state.values()]).tolist() for state in (weights, average)]
    return {"losses": losses, "weights": flat[0], "average": flat[1]}


def train_cases(rank: int, world_size: int, cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Train one rank of all cases, one after the other."""
    return {name: train_rank(rank, world_size, case) for name, case in cases.items()}


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    # Without these imports every one of the processes with ZeRO-3 would load the modules for itself.
    import deepspeed.runtime.zero.stage3  # noqa: F401
    import torch._dynamo  # noqa: F401

    gc.freeze()  # else DeepSpeed's garbage collection takes a second in every rank
    cases = json.loads(sys.argv[1])
    results = {}
    for resume, workers in sorted({(case["resume"], case["workers"]) for case in cases.values()}):
        alike = {n: c for n, c in cases.items() if (c["resume"], c["workers"]) == (resume, workers)}
        results |= run_ranks(workers, train_cases, alike)
    print(json.dumps(results))
