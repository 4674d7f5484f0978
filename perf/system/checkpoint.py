"""`python -m perf checkpoint`: our checkpoints beside DeepSpeed's, written by two ranks and loaded by one.

DeepSpeed converts a checkpoint to a universal one before another world size can load it. Ours load without conversion.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from perf.environment import environment


def add_parser(commands: Any) -> None:
    """Add the command `checkpoint` and its options."""
    parser = commands.add_parser(
        "checkpoint", help="save, resize, load: ours and DeepSpeed's", description=__doc__
    )
    parser.add_argument(
        "--width", type=int, default=1024, help="width of 16 square layers (default 1024: 17 M parameters)"
    )
    parser.add_argument("--stages", type=int, nargs="*", default=[2, 3])
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Measure every stage, print and write the rows; return the exit code."""
    from xdub.train.deepspeed_setup import import_deepspeed
    from xdub.train.testing import run_ranks

    # Import once, for all ranks that are forked from this process.
    import_deepspeed(torch.device("cpu"))
    rows = []
    for stage in args.stages:
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as folder:
            saved = run_ranks(2, _save, stage, args.width, Path(folder))
            convert = _convert(Path(folder))
            loaded = run_ranks(1, _load, stage, args.width, Path(folder))
            sizes = {name: _megabytes(Path(folder) / name) for name in ("ours", "ds", "uni")}
        row = {"zero_stage": stage, "parameters": saved["parameters"], **saved["seconds"]}
        row |= {"deepspeed_convert": convert, **loaded["seconds"], "megabytes": sizes}
        rows.append(row)
        print(json.dumps(row), flush=True)
    if args.json:
        result = {
            "command": " ".join(["python -m perf", *sys.argv[1:]]),
            "environment": environment(),
            "rows": rows,
        }
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _engine(stage: int, width: int, rank: int, world_size: int, *, universal: bool = False) -> Any:
    """Build the real engine on a stack of linear layers."""
    from unittest import mock

    from xdub.config import load_recipe
    from xdub.train import engine as module

    settings = {"zero_stage": stage, "global_batch": 2, "micro_batch": 1, "workers": world_size, "ema": 0.99}
    train = load_recipe("tiny", [f"train.{k}={v}" for k, v in settings.items()]).for_phase("generator")
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(16)))
    config = module.deepspeed_config(train, world_size) | {"checkpoint": {"load_universal": universal}}
    with mock.patch.object(module, "deepspeed_config", lambda *_: config):
        engine = module.Engine.build(
            model, train, device=torch.device("cpu"), rank=rank, world_size=world_size
        )
    return engine


def _save(rank: int, world_size: int, stage: int, width: int, folder: Path) -> dict[str, Any]:
    engine = _engine(stage, width, rank, world_size)
    engine.backward(engine.model(torch.ones(1, width)).pow(2).mean(), last=True)
    engine.step()
    if rank == 0:
        (folder / "ours").mkdir()
    dist.barrier()
    seconds = {"ours_save": _timed(lambda: engine.save(folder / "ours"))}
    seconds["deepspeed_save"] = _timed(lambda: engine.model.save_checkpoint(str(folder), tag="ds"))
    return {"seconds": seconds, "parameters": 16 * width * (width + 1)}


def _load(rank: int, world_size: int, stage: int, width: int, folder: Path) -> dict[str, Any]:
    engine = _engine(stage, width, rank, world_size)
    seconds = {"ours_load": _timed(lambda: engine.load(folder / "ours", 1))}
    universal = _engine(stage, width, rank, world_size, universal=True)
    seconds["deepspeed_load"] = _timed(lambda: universal.model.load_checkpoint(str(folder), tag="uni"))
    return {"seconds": seconds}


def _convert(folder: Path) -> float:
    from deepspeed.checkpoint.ds_to_universal import main as convert

    settings = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
    paths = {"input_folder": str(folder / "ds"), "output_folder": str(folder / "uni")}
    return _timed(lambda: convert(argparse.Namespace(**settings, **paths, inject_missing_state=True)))


def _timed(function: Any) -> float:
    begin = time.perf_counter()
    function()
    return round(time.perf_counter() - begin, 2)


def _megabytes(folder: Path) -> int:
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6)
