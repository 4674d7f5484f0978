"""`python -m perf sampler`: speed of sampling, quality of solvers by evaluations, and cost by number of clips.

Everything is measured on rendered heads that no training set contains, with the weights in the package.
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
"""Default result file."""
SPEED_CLIPS = 8
"""Clips of the part `speed`."""


def add_parser(commands: Any) -> None:
    """Add the command `sampler` and its options."""
    parser = commands.add_parser(
        "sampler", help="speed-ups, solvers and cost of sampling", description=__doc__
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        help="parts to measure; the file keeps the others",
    )
    parser.add_argument(
        "--heads", type=int, default=4, help="heads whose lips are read (default %(default)s)"
    )
    parser.add_argument("--head-seed", type=int, default=8, help="seed of the heads (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="noises of each head (default %(default)s)")
    parser.add_argument(
        "--shifts", type=float, nargs="+", help="shifts of the times besides the recipe's (default 3 and 6)"
    )
    parser.add_argument(
        "--steps", type=int, nargs="+", help="steps of every solver (default: up to 16 evaluations)"
    )
    parser.add_argument("--repeat", type=int, default=4, help="timings of each level (default %(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 4, 8], help="clips sampled together")
    parser.add_argument("--no-compile", action="store_true", help="skip the compiled levels")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[8, 16, 24, 32], help="clips of the data sets"
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], help="workers of the part `pool` (default 1 and 2)"
    )
    parser.add_argument("--passes", type=int, default=1, help="runs of each data set (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default %(default)s)")
    parser.add_argument(
        "--json", type=Path, nargs="?", const=RESULT, help=f"write a result file and its .png ({RESULT.name})"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Measure the chosen parts; return the exit code."""
    torch.set_num_threads(args.threads)
    recipe, bundle = load_recipe("tiny"), load_bundle()
    results = json.loads(args.json.read_text("utf-8")) if args.json and args.json.is_file() else {}
    for part in PARTS:
        if part not in args.parts:
            continue
        measured_on = _conditions(args, recipe)
        results[part] = measured_on | PARTS[part](args, recipe, bundle)
        # Write at once, so that an interrupt costs one part.
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
            print(f"wrote {args.json}", flush=True)
    if args.json and "quality" in args.parts:
        from perf.sampler.error_plot import draw

        measured = results["quality"]
        draw(measured["rows"], measured["exact"], measured["recipe"], args.json.with_suffix(".png"))
    return 0


def _conditions(args: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """Return command, time, machine and recipe of a measurement."""
    machine = {
        "threads": args.threads,
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
        "load": round(os.getloadavg()[0], 2),
    }
    return {
        "command": " ".join(["python -m perf", *sys.argv[1:]]),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": environment() | machine,
        **{name: recipe.to_dict()[name] for name in ("pairs", "dub")},
    }


def _speed(args: argparse.Namespace, recipe: Recipe, bundle: Bundle) -> dict[str, Any]:
    heads = render_heads(recipe, SPEED_CLIPS, seed=7, frames=recipe.pairs.segment_frames)
    rows = []
    # A video is dubbed one window at a time, so three are enough.
    for model, clips, batches in (("generator", heads, args.batches), ("editor", heads[:3], [])):
        levels = speed.ladder(batches, model == "generator" and not args.no_compile)
        rows += speed.measure(recipe, bundle, model, clips, levels, args.repeat)
    print(speed.table(rows), flush=True)
    return {"frames": recipe.pairs.segment_frames, "clips": SPEED_CLIPS, "rows": rows}


def _scaling(args: argparse.Namespace, recipe: Recipe, bundle: Bundle) -> dict[str, Any]:
    weights = bundle.path / "generator.safetensors"
    with tempfile.TemporaryDirectory(prefix="xdub-perf-sampler-") as folder:
        measured = scaling.measure(Path(folder), recipe, weights, args.sizes, args.passes, args.threads)
    for key, fit in measured["fits"].items():
        print(f"  {key}: {fit['intercept']:.2f} + {fit['slope']:.4f} a clip, R^2 {fit['r2']:.4f}", flush=True)
    return measured


def _pool(args: argparse.Namespace, recipe: Recipe, bundle: Bundle) -> dict[str, Any]:
    """Measure the cost of a clip for all workers together, which must not depend on their number."""
    weights, measured = bundle.path / "generator.safetensors", {}
    with tempfile.TemporaryDirectory(prefix="xdub-perf-pool-") as folder:
        for workers in args.workers:
            print(f" {workers} workers", flush=True)
            measured[workers] = scaling.measure(
                Path(folder), recipe, weights, args.sizes, args.passes, threads=1, workers=workers
            )
    for workers, figures in measured.items():
        fit = figures["fits"]["seconds"]
        line = f"{fit['intercept']:.2f} s + {fit['slope']:.4f} s a clip, R^2 {fit['r2']:.4f}"
        print(f"  {workers} workers, processor: {line}", flush=True)
    return {"batch": scaling.POOL_BATCH, "workers": measured}


def _quality(args: argparse.Namespace, recipe: Recipe, bundle: Bundle) -> dict[str, Any]:
    """Measure the curve, with the recipe's setting on it."""
    pairs = recipe.pairs
    heads = render_heads(recipe, args.heads, seed=args.head_seed)
    shifts = list(dict.fromkeys([pairs.sampler_shift, *(args.shifts or [3.0, 6.0])]))
    steps_of = {name: args.steps or steps for name, steps in quality.STEPS.items()}
    steps_of[pairs.solver] = sorted({*steps_of[pairs.solver], pairs.sampler_steps})
    exact, *rows = quality.curve(
        recipe, bundle, heads, seeds=range(args.seeds), shifts=shifts, steps_of=steps_of
    )
    used = (pairs.sampler_shift, pairs.solver, pairs.sampler_steps)
    (chosen,) = [row for row in rows if (row["shift"], row["solver"], row["steps"]) == used]
    return {
        "heads": args.heads,
        "head_seed": args.head_seed,
        "seeds": args.seeds,
        "exact": exact,
        "rows": rows,
        "recipe": chosen,
        "against_recipe": quality.against(rows, chosen),
    }


PARTS = {"speed": _speed, "scaling": _scaling, "pool": _pool, "quality": _quality}
"""Functions of the parts by name."""
