"""`python -m perf sampler`: what makes a clip cheaper to sample, what a solver gives for its evaluations, and what more
clips cost. On rendered heads that no training set contains, with the weights in the package.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from perf.environment import ROOT, environment
from perf.sampler import quality, scaling, speed
from perf.sampler.heads import render_heads
from xdub.config import Recipe, load_recipe
from xdub.model.bundle import Bundle, load_bundle

RESULT = ROOT / "docs" / "results" / "sampler.json"
SPEED_CLIPS = 8


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "sampler", help="speed-ups, solvers and cost of sampling", description=__doc__
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="the others stay as the file has them"
    )
    parser.add_argument(
        "--heads", type=int, default=4, help="heads whose lips are read (default %(default)s)"
    )
    parser.add_argument("--head-seed", type=int, default=8, help="which heads (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="noises for each head (default %(default)s)")
    parser.add_argument(
        "--shifts", type=float, nargs="+", help="of the times, besides the recipe's (default 3 and 6)"
    )
    parser.add_argument(
        "--steps", type=int, nargs="+", help="of every solver (default: up to 16 evaluations)"
    )
    parser.add_argument("--repeat", type=int, default=4, help="timings of each level (default %(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 4, 8], help="clips sampled together")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled levels")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[8, 16, 24, 32], help="clips of the data sets"
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], help="of the part `pool` (default 1 and 2)"
    )
    parser.add_argument("--passes", type=int, default=1, help="runs of each data set (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default %(default)s)")
    parser.add_argument(
        "--json", type=Path, nargs="?", const=RESULT, help=f"write a result file and its .png ({RESULT.name})"
    )
    parser.set_defaults(main=main)


def main(told: argparse.Namespace) -> int:
    torch.set_num_threads(told.threads)
    recipe, bundle = load_recipe("tiny"), load_bundle()
    known = json.loads(told.json.read_text("utf-8")) if told.json and told.json.is_file() else {}
    for part in PARTS:
        if part not in told.parts:
            continue
        measured_on = _conditions(told, recipe)
        known[part] = measured_on | PARTS[part](told, recipe, bundle)
        if told.json:  # at once, so that an interrupt costs one part
            told.json.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
            print(f"wrote {told.json}", flush=True)
    if told.json and "quality" in told.parts:
        from perf.sampler.error_plot import draw

        found = known["quality"]
        draw(found["rows"], found["exact"], found["recipe"], told.json.with_suffix(".png"))
    return 0


def _conditions(told: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """How and where a part is measured."""
    machine = {
        "threads": told.threads,
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
        "load": round(os.getloadavg()[0], 2),
    }
    return {
        "command": " ".join(["python -m perf", *sys.argv[1:]]),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": environment() | machine,
        **{name: recipe.to_dict()[name] for name in ("pairs", "dub")},
    }


def _speed(told: argparse.Namespace, recipe: Recipe, bundle: Bundle) -> dict[str, Any]:
    heads = render_heads(recipe, SPEED_CLIPS, seed=7, frames=recipe.pairs.segment_frames)
    rows = []
    # A video is dubbed one window at a time; three of them say enough.
    for model, clips, batches in (("generator", heads, told.batches), ("editor", heads[:3], [])):
        levels = speed.ladder(batches, model == "generator" and not told.no_compile)
        rows += speed.measure(recipe, bundle, model, clips, levels, told.repeat)
    print(speed.table(rows), flush=True)
    return {"frames": recipe.pairs.segment_frames, "clips": SPEED_CLIPS, "rows": rows}


def _scaling(told: argparse.Namespace, recipe: Recipe, bundle: Bundle) -> dict[str, Any]:
    weights = bundle.path / "generator.safetensors"
    with tempfile.TemporaryDirectory(prefix="xdub-perf-sampler-") as folder:
        found = scaling.measure(Path(folder), recipe, weights, told.sizes, told.passes, told.threads)
    for key, fit in found["fits"].items():
        print(f"  {key}: {fit['intercept']:.2f} + {fit['slope']:.4f} a clip, R^2 {fit['r2']:.4f}", flush=True)
    return found


def _pool(told: argparse.Namespace, recipe: Recipe, bundle: Bundle) -> dict[str, Any]:
    """What a clip costs the workers together must not depend on how many they are."""
    weights, found = bundle.path / "generator.safetensors", {}
    with tempfile.TemporaryDirectory(prefix="xdub-perf-pool-") as folder:
        for workers in told.workers:
            print(f" {workers} workers", flush=True)
            found[workers] = scaling.measure(
                Path(folder), recipe, weights, told.sizes, told.passes, threads=1, workers=workers
            )
    for workers, each in found.items():
        fit = each["fits"]["seconds"]
        line = f"{fit['intercept']:.2f} s + {fit['slope']:.4f} s a clip, R^2 {fit['r2']:.4f}"
        print(f"  {workers} workers, processor: {line}", flush=True)
    return {"batch": scaling.POOL_BATCH, "workers": found}


def _quality(told: argparse.Namespace, recipe: Recipe, bundle: Bundle) -> dict[str, Any]:
    """The curve; what the recipe does is always on it."""
    pairs = recipe.pairs
    heads = render_heads(recipe, told.heads, seed=told.head_seed)
    shifts = list(dict.fromkeys([pairs.sampler_shift, *(told.shifts or [3.0, 6.0])]))
    steps_of = {name: told.steps or steps for name, steps in quality.STEPS.items()}
    steps_of[pairs.solver] = sorted({*steps_of[pairs.solver], pairs.sampler_steps})
    exact, *rows = quality.curve(
        recipe, bundle, heads, seeds=range(told.seeds), shifts=shifts, steps_of=steps_of
    )
    used = (pairs.sampler_shift, pairs.solver, pairs.sampler_steps)
    (chosen,) = [row for row in rows if (row["shift"], row["solver"], row["steps"]) == used]
    return {
        "heads": told.heads,
        "head_seed": told.head_seed,
        "seeds": told.seeds,
        "exact": exact,
        "rows": rows,
        "recipe": chosen,
        "against_recipe": quality.against(rows, chosen),
    }


PARTS = {"speed": _speed, "scaling": _scaling, "pool": _pool, "quality": _quality}
