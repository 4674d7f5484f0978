"""`python -m perf speech_features`: a generator trained with features of Whisper tiny.en, and with log-mel.

Both train from random weights on the same rendered heads with the same steps and seeds; only the section `audio` of the
recipe differs. Each checkpoint dubs heads outside the training set with their twins' speech, and opening_corr is
measured against the twin's true opening. A clip is as long as a training window and keeps the sound around it. The
encoders are frozen, so a window's features are computed once and kept for its later epochs, which changes no bit.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from perf.environment import environment
from perf.sampler.speech_clips import (
    CLIPS,
    HEAD_FRAMES,
    WINDOW,
    Head,
    ceiling,
    held_out_heads,
    opening_of,
    render_clips,
)
from xdub.config import Recipe, load_recipe

if TYPE_CHECKING:
    from torch import Tensor

    from xdub.model.backbone import Backbone

FEATURES = {
    "log-mel": (),
    "Whisper tiny.en": ("audio.kind=whisper", "audio.dim=384", "audio.path=tiny.en"),
}
"""Name of the features -> settings of the recipe `tiny`."""


def recipe_of(features: str, steps: int, points: int, seed: int, settings: Sequence[str] = ()) -> Recipe:
    """Return `tiny` with the features, for one thread, with ``points`` checkpoints, all of them kept."""
    every = math.ceil(steps / points)
    own = [
        f"video.clip_frames={WINDOW}",
        f"phases.generator.window={WINDOW}",
        f"train.steps={steps}",
        f"train.warmup={min(50, steps // 5)}",
        f"train.checkpoint_every={every}",
        f"train.keep_checkpoints={points + 1}",
        "train.sample_every=0",
        "train.num_threads=1",
        f"seed={seed}",
    ]
    return load_recipe("tiny", [*own, *FEATURES[features], *settings])


def kept_rows(encode: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return an encoder's method ``encode`` that keeps the rows of every sound."""
    rows: dict[bytes, Tensor] = {}

    @functools.wraps(encode)
    def encode_once(encoder: object, wav: np.ndarray) -> Tensor:
        key = wav.tobytes()
        if key not in rows:
            rows[key] = encode(encoder, wav)
        return rows[key]

    return encode_once


def train_and_measure(
    features: str, recipes: Sequence[Recipe], data: Path, out: Path, heads: Sequence[Head]
) -> list[dict[str, Any]]:
    """Train the generator once for each recipe (they differ in the seed); return a row for every checkpoint."""
    import torch

    from xdub.demo.learning_curve import load_checkpoint
    from xdub.model.audio_encoder import LogMelEncoder, WhisperEncoder
    from xdub.train.run import train_phase

    torch.set_num_threads(1)
    encoder = WhisperEncoder if recipes[0].audio.kind == "whisper" else LogMelEncoder
    rows = []
    with patch.object(encoder, "encode", kept_rows(encoder.encode)):
        for recipe in recipes:
            run = out / f"{recipe.audio.kind}-{recipe.seed}"
            result = train_phase(
                "generator", recipe, data, run, resume=True, local=True, progress=lambda state: None
            )
            for step in sorted(result.folder.checkpoint_steps()):
                network = load_checkpoint(result.folder.checkpoint(step), "generator", recipe)
                by_head = opening_corrs(network, recipe, heads)
                row = {"features": features, "seed": recipe.seed, "step": step, "opening_corr": mean(by_head)}
                print(json.dumps(row), file=sys.stderr, flush=True)
                rows.append(row | {"by_head": by_head})
    return rows


def opening_corrs(network: Backbone, recipe: Recipe, heads: Sequence[Head]) -> list[float]:
    """Dub every head with its twin's speech as the pair factory does; return opening_corr of each."""
    from xdub.dub.tracks import Track, generate
    from xdub.dub.window_sampler import WindowSampler
    from xdub.evaluate.metrics.opening_corr import opening_corr
    from xdub.evaluate.opening import read_opening
    from xdub.model.audio_encoder import load_audio_encoder
    from xdub.model.codec import load_codec

    tracks = [
        Track(
            frames=head.clip.frames,
            sound=head.twin.sound,
            noise=("speech features", head.clip.clip_id),
            hidden=head.clip.visible_mask,
        )
        for head in heads
    ]
    settings = recipe.pairs
    sampler = WindowSampler(
        network,
        load_codec(recipe.codec),
        load_audio_encoder(recipe.audio),
        num_steps=settings.sampler_steps,
        shift=settings.sampler_shift,
    )
    films = generate(tracks, sampler, window=WINDOW, motion=settings.motion_frames, batch=settings.batch)
    frames = [np.rint(film).astype(np.uint8) for film in films]
    read = [read_opening(film, head.clip.landmarks) for film, head in zip(frames, heads, strict=True)]
    return list(opening_corr(read, [opening_of(head.twin) for head in heads]).per_clip)


def mean(values: Sequence[float]) -> float:
    """Return the mean of the finite values: a mouth that does not move has no correlation."""
    from xdub.evaluate.metrics.opening_corr import finite_mean

    return finite_mean(values)


def seconds_per_window(recipe: Recipe, head: Head) -> float:
    """Return the CPU seconds in which one thread computes the features of a window."""
    import torch

    from xdub.data.latents import window_features
    from xdub.data.sound import window_sound
    from xdub.model.audio_encoder import load_audio_encoder

    torch.set_num_threads(1)
    encoder, sound = load_audio_encoder(recipe.audio), window_sound(head.twin.sound, 0, WINDOW)
    seconds = []
    for _ in range(4):
        begin = time.process_time()
        window_features(encoder, sound, recipe.speech)
        seconds.append(time.process_time() - begin)
    return min(seconds)


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return opening_corr by features and step, and the last step's difference of the features.

    A cell of `table` has the mean over seeds and the seeds' own values. The difference is Whisper - log-mel of each
    head, averaged over seeds: its mean over heads, and the half width of that mean's 95 % interval (normal).
    """
    steps = sorted({row["step"] for row in rows})
    table: dict[str, dict[str, list[float]]] = {}
    last: dict[str, np.ndarray] = {}
    for features in FEATURES:
        own = sorted((row for row in rows if row["features"] == features), key=lambda row: row["seed"])
        table[features] = {}
        for step in steps:
            values = [row["opening_corr"] for row in own if row["step"] == step]
            table[features][str(step)] = [round(v, 4) for v in (mean(values), *values)]
        # [seeds, heads]
        last[features] = np.array([row["by_head"] for row in own if row["step"] == steps[-1]])
    log_mel, whisper = last.values()
    difference = np.array([mean(by_seed) for by_seed in (whisper - log_mel).T])
    finite = difference[np.isfinite(difference)]
    half = 1.96 * float(finite.std(ddof=1)) / math.sqrt(len(finite)) if len(finite) > 1 else math.nan
    return {
        "table": table,
        "whisper_minus_log_mel": [round(float(finite.mean()), 4), round(half, 4)],
    }


def print_table(result: dict[str, Any]) -> None:
    """Print the table as Markdown."""
    steps = list(next(iter(result["table"].values())))
    print(
        f"| features, mean (seeds {result['settings']['seeds']}) | {' | '.join(f'step {s}' for s in steps)} |"
    )
    print("|---|" + "---:|" * len(steps))
    for features, row in result["table"].items():
        cells = [f"{values[0]:.3f} ({', '.join(f'{v:.3f}' for v in values[1:])})" for values in row.values()]
        print(f"| {features} | {' | '.join(cells)} |")
    difference, half = result["whisper_minus_log_mel"]
    print(
        f"\nWhisper tiny.en - log-mel, last step: {difference:+.3f} +- {half:.3f}; ceiling {result['ceiling']:.3f}"
    )


def add_parser(commands: Any) -> None:
    """Add the command `speech_features` and its options."""
    parser = commands.add_parser(
        "speech_features", help="Whisper tiny.en against log-mel, trained from nothing", description=__doc__
    )
    parser.add_argument(
        "--recordings", type=int, default=48, help="rendered training videos, each with a twin (default 48)"
    )
    parser.add_argument("--heads", type=int, default=16, help="held-out heads (default 16)")
    parser.add_argument("--steps", type=int, default=160, help="training steps (default 160)")
    parser.add_argument("--points", type=int, default=4, help="checkpoints that are measured (default 4)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--set", dest="settings", action="append", default=[], help="further recipe setting")
    parser.add_argument(
        "--folder", type=Path, help="keep clips and runs in this folder; the same command continues them"
    )
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Render, train with both features side by side, measure, print and write the result; return the exit code."""
    from xdub.model.audio_encoder import load_audio_encoder

    recipes = {
        name: [recipe_of(name, args.steps, args.points, seed, args.settings) for seed in args.seeds]
        for name in FEATURES
    }
    first = next(iter(recipes.values()))[0]
    # Whisper tiny.en is fetched before the hour of training, not in it.
    for own in recipes.values():
        load_audio_encoder(own[0].audio)
    heads = held_out_heads(first, args.heads)
    with tempfile.TemporaryDirectory(prefix="speech-features-") as name:
        folder = (args.folder or Path(name)).resolve()
        data = render_clips(first, folder, args.recordings)
        # Spawned processes have no OpenGL context and no threads of the renderer.
        with ProcessPoolExecutor(len(FEATURES), multiprocessing.get_context("spawn")) as pool:
            jobs = [
                pool.submit(train_and_measure, name, own, data, folder, heads)
                for name, own in recipes.items()
            ]
            rows = [row for job in jobs for row in job.result()]
    result = {
        "command": " ".join(["python -m perf", *sys.argv[1:]]),
        "environment": environment(),
        "settings": {
            "recipe": "tiny",
            "features": {name: list(settings) for name, settings in FEATURES.items()},
            "recordings": 2 * args.recordings,
            "clips": 2 * args.recordings * CLIPS,
            "clip_frames": WINDOW,
            "held_out_heads": args.heads,
            "head_frames": HEAD_FRAMES,
            "steps": args.steps,
            "seeds": args.seeds,
            "overrides": args.settings,
        },
        "cpu_seconds_per_window": {
            n: round(seconds_per_window(own[0], heads[0]), 4) for n, own in recipes.items()
        },
        "ceiling": round(ceiling(heads), 4),
        **summarise(rows),
        "rows": rows,
    }
    print_table(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0
