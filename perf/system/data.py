"""`python -m perf data`: the time that training waits for data, and the samples one core delivers for a big recipe.

The first part trains the recipe `tiny` under Ray, on pixels and on cached latents, and reads `perf/data_wait` from the
journal. The second part builds clips of another recipe's size, times each part of a data actor's work on one core, and
compares it with the demand of GPUs; the same is done for entries of cached latents of that size.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perf.environment import ROOT, environment
from perf.system.latent_reader import latent_lines, latent_reader, median_seconds
from xdub.config import Recipe, inpaints, load_recipe
from xdub.data.batch import RawBatch
from xdub.data.clip import Clip, from_row, to_row
from xdub.data.manifest import read_manifest, sha256_of
from xdub.data.samples import collate
from xdub.data.shards import ShardReader, ShardWriter
from xdub.data.testing import make_clip
from xdub.data.windows import cut_window
from xdub.encode import encode_latents

RESULT = ROOT / "docs" / "results" / "data_wait.json"
"""Default result file."""
GOAL = 0.02
"""Largest accepted share of a step spent waiting."""
LOG_EVERY = 5
"""Steps of a log interval."""
STRIDE = 10
"""Grid of the windows of the training runs, frames."""
WARM_UP = 2
"""Log intervals that do not count, because actors start and caches fill."""


def data_wait(data: Path, workers: int, steps: int, latents: str = "live") -> dict[str, Any]:
    """Train the generator of `tiny`; return the share of step time spent waiting for data, after warm-up.

    ``latents`` is the recipe's `train.latents`; a cache is written first, in a temporary folder.
    """
    from xdub.files.lines import read_lines
    from xdub.files.run_folder import PhaseFolder
    from xdub.train.run import train_phase

    settings = [f"train.workers={workers}", f"train.micro_batch={16 // workers}", f"train.steps={steps}"]
    settings += [f"train.log_every={LOG_EVERY}", f"train.checkpoint_every={steps}"]
    settings += [f"train.latents={latents}", f"train.window_stride={STRIDE}"]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="xdub-perf-data-") as out:
        recipe = load_recipe("tiny", [*settings, f"train.latent_cache={out}/latents"])
        if latents == "cached":
            encode_latents(recipe, data, phases=["generator"], local=True)
        train_phase("generator", recipe, data, out, progress=lambda now: None)
        records = list(read_lines(PhaseFolder(out, "generator").journal))
    logged = [r["values"] for r in records if r["kind"] == "metrics" and r["step"] > WARM_UP * LOG_EVERY]
    waits = [values["perf/data_wait"] for values in logged]
    return {
        "latents": latents,
        "workers": workers,
        "steps": [WARM_UP * LOG_EVERY + 1, steps],
        "load_before": round(load, 2),
        "step_seconds": statistics.mean(values["perf/step_seconds"] for values in logged),
        "data_wait": statistics.mean(waits),
        "data_wait_worst": max(waits),
    }


def footage(recipe: Recipe, *, pair: bool, noise: float) -> Clip:
    """Build a clip of the recipe's size: moving waves with a camera's grain, which decides the bytes of its H.264."""
    size, frames = recipe.video.size, recipe.video.clip_frames
    clip = make_clip(0, num_frames=frames, size=size, pair=pair)
    random = np.random.default_rng(0)

    def grain(video: np.ndarray | None) -> np.ndarray | None:
        if video is None:
            return None
        grainy = [frame + noise * random.standard_normal(frame.shape, np.float32) for frame in video]
        return np.clip(np.rint(grainy), 0, 255).astype(np.uint8)

    frames_with_grain = grain(clip.frames)
    assert frames_with_grain is not None
    return replace(clip, frames=frames_with_grain, reference=grain(clip.reference))


def reader(recipe: Recipe, phase: str, *, noise: float, repeats: int) -> dict[str, Any]:
    """Measure one core's seconds for a sample of a phase, by part, and its bytes. The file is in the page cache."""
    clip = footage(recipe, pair=not inpaints(phase), noise=noise)
    window = recipe.phase(phase).window
    with tempfile.TemporaryDirectory(prefix="xdub-perf-shard-") as folder:
        with ShardWriter(folder) as writer:
            writer.add_row(to_row(clip))
        manifest = read_manifest(folder)
        rows = ShardReader(manifest)
        row = rows.row(0)

        def make_batch() -> RawBatch:
            sample = cut_window(
                clip,
                phase=phase,
                window=window,
                geometry=recipe.codec.geometry,
                rng=np.random.default_rng(0),
            )
            return collate([sample | {"epoch": 0, "position": 0, "bad": {}}])

        seconds = {
            "sha256, once a machine": median_seconds(lambda: sha256_of(manifest.path(0)), repeats),
            "read": median_seconds(lambda: rows.row(0), repeats),
            "decode": median_seconds(lambda: from_row(row), repeats),
            "window": median_seconds(make_batch, repeats),
        }
        size = manifest.shards[0].bytes
    batch = make_batch()
    pixels = sum(v.nbytes for v in batch.values() if isinstance(v, np.ndarray))
    seconds_per_sample = sum(value for name, value in seconds.items() if "once" not in name)
    return {
        "recipe": recipe.name,
        "phase": phase,
        "window": window,
        "clip": [clip.num_frames, recipe.video.size, recipe.video.size],
        "videos": 1 if clip.reference is None else 2,
        "noise": noise,
        "seconds": seconds,
        "samples_per_s_core": 1 / seconds_per_sample,
        "row_bytes": size,
        "batch_bytes": pixels,
    }


def needs(sample: dict[str, Any], recipe: Recipe, gpus: int, step_seconds: float) -> dict[str, Any]:
    """Return the samples/s that ``gpus`` consume, and the cores, storage and transfers that they need."""
    rate = recipe.for_phase(sample["phase"]).global_batch / step_seconds
    return {
        "gpus": gpus,
        "step_seconds": step_seconds,
        "samples_per_s": rate,
        "cores_per_gpu": rate / gpus / sample["samples_per_s_core"],
        "storage_bytes_per_s": rate * sample["row_bytes"],
        "to_gpu_bytes_per_s": rate * sample["batch_bytes"] / gpus,
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as text."""
    lines = []
    for run in result["train"]:
        verdict = "ok" if run["data_wait"] < GOAL else f"above the goal of {GOAL:.0%}"
        lines.append(
            f"tiny, {run['workers']} worker(s), latents {run['latents']}: waits {run['data_wait']:.2%} of a step of "
            f"{run['step_seconds']:.2f} s "
            f"(worst interval {run['data_wait_worst']:.2%}; load before {run['load_before']}): {verdict}"
        )
    for sample in result["reader"]:
        need = sample["needs"]
        frames, size, _ = sample["clip"]
        lines.append(
            f"\n{sample['recipe']}, {sample['phase']}: {sample['videos']} x {frames} frames of {size} px, "
            f"window {sample['window']}, grain {sample['noise']:g}: {sample['row_bytes'] / 1e6:.1f} MB a row"
        )
        lines += [f"  {name:24s}{1e3 * value:9.1f} ms" for name, value in sample["seconds"].items()]
        lines.append(f"  one core delivers       {sample['samples_per_s_core']:9.2f} samples/s")
        lines.append(
            f"  {need['gpus']} GPUs take {need['samples_per_s']:.2f} samples/s, {need['step_seconds']:.1f} s a step: "
            f"{need['cores_per_gpu']:.2f} cores a GPU, {need['storage_bytes_per_s'] / 1e6:.0f} MB/s from storage, "
            f"{need['to_gpu_bytes_per_s'] / 1e6:.1f} MB/s to each GPU"
        )
        if sample["encode_flops"]:
            lines.append(
                f"  the codec adds {sample['encode_flops'] / 1e12:.0f} TFLOP a sample on the GPU to the model's "
                f"{sample['model_flops'] / 1e12:.0f}; the step above is without it"
            )
    lines += [line for sample in result["latent_reader"] for line in latent_lines(sample)]
    return "\n".join(lines)


def add_parser(commands: Any) -> None:
    """Add the command `data` and its options."""
    parser = commands.add_parser(
        "data", help="time that training waits for data, and samples that one core delivers"
    )
    parser.add_argument(
        "--data", type=Path, help="data set for the training runs (xdub render --clips 24); none = no runs"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--latents", nargs="+", choices=["live", "cached"], default=["live", "cached"], help="training runs"
    )
    parser.add_argument("--steps", type=int, default=40, help="steps of each training run")
    parser.add_argument(
        "--repeat", type=int, default=2, help="runs of each; the one with the shortest step counts"
    )
    parser.add_argument("--recipe", default="xdub-1b", help="recipe whose samples are read")
    parser.add_argument("--phases", nargs="+", default=["generator", "editor"])
    parser.add_argument("--gpus", type=int, default=32)
    parser.add_argument(
        "--step-seconds",
        type=float,
        help="seconds of a global batch (default: the model's FLOPs, 0.8 PFLOP a sample for the editor of xdub-1b, at "
        "40 %% of 312 TFLOP/s)",
    )
    parser.add_argument("--noise", type=float, default=2.0, help="grain of the synthetic footage, of 255")
    parser.add_argument("--reads", type=int, default=5, help="repetitions of each part")
    parser.add_argument(
        "--json", type=Path, nargs="?", const=RESULT, help=f"write a result file (default {RESULT.name})"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Measure, print and write the result; return the exit code."""
    torch.set_num_threads(1)
    recipe = load_recipe(args.recipe)
    result: dict[str, Any] = {
        "command": "python -m perf " + " ".join(sys.argv[1:]),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "train": [],
        "reader": [],
        "latent_reader": [],
    }
    kinds = [(workers, latents) for latents in args.latents for workers in args.workers]
    for workers, latents in kinds if args.data else []:
        runs = [data_wait(args.data, workers, args.steps, latents) for _ in range(args.repeat)]
        best = min(runs, key=lambda run: run["step_seconds"])
        result["train"].append(best | {"all": [[run["step_seconds"], run["data_wait"]] for run in runs]})
    for phase in args.phases:
        sample = reader(recipe, phase, noise=args.noise, repeats=args.reads)
        flops, batch = model_flops(recipe, phase), recipe.for_phase(phase).global_batch
        seconds = args.step_seconds or batch * flops / (args.gpus * 0.4 * 312e12)
        sample["needs"] = needs(sample, recipe, args.gpus, seconds)
        sample |= {"model_flops": flops, "encode_flops": encode_flops(recipe, phase)}
        result["reader"].append(sample)
        cached = latent_reader(recipe, phase, repeats=args.reads)
        result["latent_reader"].append(cached | {"needs": needs(cached, recipe, args.gpus, seconds)})
    print(table(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        print(f"\nwrote {args.json}")
    return 0


def model_flops(recipe: Recipe, phase: str) -> float:
    """Return the FLOPs of one sample, forward, backward and recomputation.

    The plan counts 0.8 PFLOP for xdub-1b's editor at 40,960 tokens. 31 % of them grow with the tokens and 69 % with
    their square (our own count for ``xdub-1b``), so shorter windows need less.
    """
    latents = 1 + (recipe.phase(phase).window - 1) // 4
    share = (latents + (1 if inpaints(phase) else latents)) / 40
    return 0.8e15 * (0.31 * share + 0.69 * share**2)


def encode_flops(recipe: Recipe, phase: str) -> float | None:
    """Count the FLOPs of Wan's VAE for one sample, which the training GPU spends, too; None for other codecs."""
    if recipe.codec.kind != "wan":
        return None
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from torch.utils.flop_counter import FlopCounterMode

    window, size = recipe.phase(phase).window, recipe.video.size
    with torch.device("meta"):
        vae = AutoencoderKLWan()
    total = 0
    for frames in (window, window, 1) if inpaints(phase) else (window, window):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            vae.encode(torch.empty(1, 3, frames, size, size, device="meta"))
        total += counter.get_total_flops()
    return float(total)
