"""`python -m perf segments`: short segments against one long pass (paper Table 6, Fig. 6), on freshly rendered heads.

A generator dubs heads outside its training set with their twins' speech: by segments bridged by motion frames, and in
one pass as long as the clip. The twin is the ground truth. Every seed has its own heads and noise for both ways.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perf.environment import environment
from xdub.config import Recipe
from xdub.report.palette import ACCENT, SECOND

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xdub.model.bundle import Bundle
    from xdub.perception.identity.base import Identity
    from xdub.render.clips import RenderedPair

TRUTH = "true twin"
"""Name of the ground truth in the result."""
EDGE = 10
"""Frames at either end whose difference is the drift."""
FIGURES = {
    "identity": "identity to the source",
    "drift": "its last 10 frames - first 10",
    "sync": "opening_corr",
    "psnr": "face PSNR to the twin, dB",
    "seam": "seam",
}
"""Columns of the table: figure -> title."""


def add_parser(commands: Any) -> None:
    """Add the command `segments` and its options."""
    parser = commands.add_parser(
        "segments", help="short segments against one pass (paper Table 6)", description=__doc__
    )
    parser.add_argument(
        "--model", default="tiny", help="model folder with a generator (default: the shipped)"
    )
    parser.add_argument(
        "--frames", type=int, default=77, help="frames of every clip (default 77, the paper's)"
    )
    parser.add_argument("--long", type=int, default=77, help="frames of the long pass, 4k + 1 (default 77)")
    parser.add_argument("--heads", type=int, default=8, help="heads of every seed (default 8)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, help="write the result to this file, and its picture beside it")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Dub, measure, print and write the result; return the exit code."""
    from xdub.errors import UserError
    from xdub.model.bundle import load_bundle
    from xdub.perception.identity.load import load_identity

    bundle = load_bundle(args.model)
    if bundle.generator is None:
        raise UserError(f"{args.model} has no generator.safetensors; `xdub bootstrap` writes both")
    recipe, identity = bundle.recipe, load_identity(bundle.recipe.perception)
    windows = ways(recipe, args.long)
    measured: list[dict[str, Any]] = []
    for seed in args.seeds:
        pairs = list(heads(recipe, seed, args.heads, args.frames))
        print(f"seed {seed}: {len(pairs)} heads of {args.frames} frames", file=sys.stderr, flush=True)
        for way, window in {TRUTH: None, **windows}.items():
            begin = time.perf_counter()
            films = [p.twin.frames for p in pairs] if window is None else dub(bundle, pairs, window, seed)
            seconds = time.perf_counter() - begin
            for pair, film in zip(pairs, films, strict=True):
                row = measure(pair, film, recipe, identity)
                measured.append({"way": way, "seed": seed, "seconds": seconds / len(pairs), **row})
    result = {
        "command": " ".join(["python -m perf", *sys.argv[1:]]),
        "environment": environment(),
        "model": str(args.model),
        "settings": {
            "frames": args.frames,
            "heads_per_seed": args.heads,
            "seeds": args.seeds,
            "motion_frames": recipe.pairs.motion_frames,
            "sampler_steps": recipe.pairs.sampler_steps,
            "identity": recipe.perception.identity,
        },
        **summarise(measured),
    }
    print_table(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
        figure(result, recipe).savefig(args.json.with_suffix(".png"))
    return 0


def ways(recipe: Recipe, long: int) -> dict[str, int]:
    """Return the window length of each way by its name in the result."""
    short, motion = recipe.pairs.segment_frames, recipe.pairs.motion_frames
    return {f"segments of {short}, {motion} given": short, f"one pass of {long}": long}


def heads(recipe: Recipe, seed: int, count: int, frames: int) -> Iterator[RenderedPair]:
    """Render pairs of clip and twin with people, scenes and sentences that no training set may hold."""
    from xdub.render.clips import FIRST_HELD_OUT, TAKES, make_clips
    from xdub.seeding import stable_seed

    video = recipe.video
    yield from make_clips(
        stable_seed("segments", seed) % 2**31,
        [FIRST_HELD_OUT + number * TAKES for number in range(count)],
        size=video.size,
        frames=frames,
        crop_scale=video.crop_scale,
    )


def dub(bundle: Bundle, pairs: Sequence[RenderedPair], window: int, seed: int) -> list[np.ndarray]:
    """Dub every clip with its twin's speech; return V' uint8 [F, S, S, 3], composited as the pair factory does."""
    from xdub.dub.tracks import Track, generate
    from xdub.dub.window_sampler import WindowSampler
    from xdub.pairs.composite import composite

    assert bundle.generator is not None
    settings = bundle.recipe.pairs
    sampler = WindowSampler(
        bundle.generator,
        bundle.codec,
        bundle.audio_encoder,
        num_steps=settings.sampler_steps,
        shift=settings.sampler_shift,
    )
    tracks = [
        Track(
            frames=pair.clip.frames,
            sound=pair.twin.sound,
            noise=("segments", seed, pair.clip.clip_id),
            hidden=pair.clip.visible_mask,
        )
        for pair in pairs
    ]
    dubbed = generate(tracks, sampler, window=window, motion=settings.motion_frames, batch=len(tracks))
    return [
        composite(p.clip.frames, film, p.clip.face_mask, p.clip.occluder_mask, settings.feather_px)
        for p, film in zip(pairs, dubbed, strict=True)
    ]


def measure(pair: RenderedPair, film: np.ndarray, recipe: Recipe, identity: Identity) -> dict[str, Any]:
    """Return the figures of one dubbed clip [F, S, S, 3] uint8; lists run over its frames.

    The seam is measured at the short segments' joints in all videos, so a video without joints shows the usual value.
    """
    from xdub.evaluate.metrics.opening_corr import pearson
    from xdub.evaluate.metrics.psnr import psnr
    from xdub.evaluate.opening import read_opening
    from xdub.pairs.seams import seam_ratio, seams

    clip, twin = pair.clip, pair.twin
    assert twin.opening is not None
    joints = seams(len(film), recipe.pairs.segment_frames, recipe.pairs.motion_frames)
    alike = (identity.embed(clip.frames, clip.landmarks) * identity.embed(film, clip.landmarks)).sum(-1)
    return {
        "identity": alike.tolist(),
        "psnr": psnr(film, twin.frames, clip.visible_mask).tolist(),
        "sync": pearson(read_opening(film, clip.landmarks), twin.opening),
        "seam": seam_ratio(film, clip.visible_mask, joints),
    }


def summarise(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the result's tables.

    `table` has every figure as [mean over seeds, standard deviation], `short_minus_long` the same of the difference,
    seed by seed, and `by_frame` a mean curve over all clips for every seed.
    """
    names = list(dict.fromkeys(row["way"] for row in measured))
    numbers = list(dict.fromkeys(row["seed"] for row in measured))

    def rows(way: str, seed: int) -> list[dict[str, Any]]:
        return [row for row in measured if (row["way"], row["seed"]) == (way, seed)]

    def one(way: str, seed: int) -> dict[str, float]:
        rows_of_seed = rows(way, seed)
        curve = np.nanmean([row["identity"] for row in rows_of_seed], axis=0)
        return {
            "identity": float(curve.mean()),
            "drift": float(curve[-EDGE:].mean() - curve[:EDGE].mean()),
            **{
                name: float(np.nanmean([row[name] for row in rows_of_seed]))
                for name in ("sync", "psnr", "seam")
            },
            "seconds": float(np.mean([row["seconds"] for row in rows_of_seed])),
        }

    figures = {way: [one(way, seed) for seed in numbers] for way in names}
    short, long = (figures[way] for way in names if way != TRUTH)
    curves = {
        way: {
            name: [np.nanmean([row[name] for row in rows(way, seed)], axis=0).tolist() for seed in numbers]
            for name in ("identity", "psnr")
        }
        for way in names
    }
    difference = [{name: a[name] - b[name] for name in a} for a, b in zip(short, long, strict=True)]
    return {
        "table": {way: _spread(values) for way, values in figures.items()},
        "short_minus_long": _spread(difference),
        "by_frame": curves,
    }


def _spread(values: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """Return [mean, sample standard deviation (0 for one seed)] of each figure."""
    columns = {name: np.array([value[name] for value in values]) for name in values[0]}
    return {
        name: [round(float(v.mean()), 5), round(float(v.std(ddof=1)) if len(v) > 1 else 0.0, 5)]
        for name, v in columns.items()
    }


def print_table(result: dict[str, Any]) -> None:
    """Print the table as Markdown."""
    seeds = result["settings"]["seeds"]
    print(
        f"mean +- standard deviation over {len(seeds)} seeds of {result['settings']['heads_per_seed']} heads\n"
    )
    print(f"| | {' | '.join(FIGURES.values())} |")
    print("|---|" + "---:|" * len(FIGURES))
    for way, row in (*result["table"].items(), ("segments - one pass", result["short_minus_long"])):
        cells = ["" if way == TRUTH and name == "psnr" else _cell(name, row[name]) for name in FIGURES]
        print(f"| {way} | {' | '.join(cells)} |")


def _cell(name: str, value: Sequence[float]) -> str:
    digits = {"psnr": 2, "seam": 2}.get(name, 4)
    sign = "+" if name == "drift" else ""
    return f"{value[0]:{sign}.{digits}f} +- {value[1]:.{digits}f}"


def figure(result: dict[str, Any], recipe: Recipe) -> Figure:
    """Draw identity and distance from the ground truth by frame, which show whether a long pass drifts (Fig. 6)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from xdub.pairs.seams import seams

    chart = Figure(figsize=(11, 3.9), dpi=130, layout="constrained")
    FigureCanvasAgg(chart)
    panels = chart.subplots(1, 2)
    titles = {"identity": "cosine to the source, same frame", "psnr": "PSNR to the true twin in the face, dB"}
    frames = len(next(iter(result["by_frame"].values()))["identity"][0])
    joints = seams(frames, recipe.pairs.segment_frames, recipe.pairs.motion_frames)
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        for (way, curves), colour in zip(
            result["by_frame"].items(), ("#8a8f98", ACCENT, SECOND), strict=True
        ):
            # The PSNR of the ground truth to itself is infinite.
            if way == TRUTH and name == "psnr":
                continue
            seeds = np.array(curves[name])
            axes.fill_between(
                range(frames), seeds.min(0), seeds.max(0), color=colour, alpha=0.15, linewidth=0
            )
            axes.plot(seeds.mean(0), color=colour, label=way, linewidth=1.6)
        for joint in joints:
            axes.axvline(joint, color=ACCENT, linewidth=0.7, linestyle=":")
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("frame (dotted: first frame of a segment)", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    chart.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    return chart
