"""Quality of solvers by evaluations: how well lips follow the words, and the distance from the exact solution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perf.sampler.heads import Head, pixels, tracks
from xdub.config import Recipe
from xdub.diffusion.sampler import evaluations
from xdub.dub.tracks import generate
from xdub.dub.window_sampler import WindowSampler
from xdub.evaluate.metrics import lip_box, mean_psnr, pearson, psnr
from xdub.evaluate.opening import read_opening
from xdub.model.bundle import Bundle

STEPS = {"euler": (2, 3, 4, 5, 6, 8, 12, 16), "heun": (2, 3, 4, 8), "ab2": (2, 3, 4, 6, 8, 16)}
"""Numbers of steps of each solver."""
EXACT = (3.0, "ab2", 64)
"""Shift, solver and steps whose result approximates the exact solution, which is the same for all."""


def curve(
    recipe: Recipe,
    bundle: Bundle,
    heads: Sequence[Head],
    *,
    seeds: Sequence[int],
    shifts: Sequence[float],
    steps_of: Mapping[str, Sequence[int]] = STEPS,
) -> list[dict[str, Any]]:
    """Return a row per shift, solver and steps, the exact solution first: figures by seed and head, and means.

    ``opening_corr`` and ``lip_psnr`` compare with the twin that really speaks the words, ``exact_psnr`` with the exact
    solution of the same equation from the same noise.
    """
    rows = []
    settings = [(shift, name, n) for shift in shifts for name, counts in steps_of.items() for n in counts]
    lips = [lip_box([h.clip.landmarks, h.twin.landmarks], *h.clip.frames.shape[1:3]) for h in heads]
    exact = [_films(recipe, bundle, heads, seed, *EXACT) for seed in seeds]
    for shift, solver, steps in [EXACT, *(setting for setting in settings if setting != EXACT)]:
        read, near, lip = [], [], []
        for seed, solved in zip(seeds, exact, strict=True):
            same = (shift, solver, steps) == EXACT
            sampled = solved if same else _films(recipe, bundle, heads, seed, shift, solver, steps)
            for head, film, whole, box in zip(heads, sampled, solved, lips, strict=True):
                assert head.twin.opening is not None
                read.append(pearson(read_opening(film, head.clip.landmarks), head.twin.opening))
                near.append(psnr(film, whole))
                lip.append(psnr(film, head.twin.frames, box))
        row: dict[str, Any] = {"shift": shift, "solver": solver, "steps": steps}
        row |= {"evaluations": evaluations(solver, steps), "opening_corr": float(np.mean(read))}
        row |= {"lip_psnr": mean_psnr(lip), "exact_psnr": mean_psnr(near), "all_opening_corr": read}
        row |= {"all_lip_psnr": [mean_psnr([each]) for each in lip]}
        rows.append(row)
        print(line(row), flush=True)
    return rows


def _films(
    recipe: Recipe, bundle: Bundle, heads: Sequence[Head], seed: int, shift: float, solver: str, steps: int
) -> list[np.ndarray]:
    assert bundle.generator is not None
    pairs = recipe.pairs
    sampler = WindowSampler(
        bundle.generator, bundle.codec, bundle.audio_encoder, num_steps=steps, shift=shift, solver=solver
    )
    films = generate(
        tracks(heads, seed, masked=True),
        sampler,
        window=pairs.segment_frames,
        motion=pairs.motion_frames,
        batch=len(heads),
    )
    return [pixels(film) for film in films]


def against(rows: Sequence[dict[str, Any]], chosen: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every row's differences from ``chosen``, clip by clip: mean and standard error over heads and seeds."""
    differences = []
    for row in rows:
        difference = {key: row[key] for key in ("shift", "solver", "steps", "evaluations")}
        for key in ("opening_corr", "lip_psnr"):
            delta = np.subtract(row[f"all_{key}"], chosen[f"all_{key}"])
            difference |= {
                key: float(delta.mean()),
                f"{key}_error": float(delta.std(ddof=1) / len(delta) ** 0.5),
            }
        differences.append(difference)
    return differences


def line(row: dict[str, Any]) -> str:
    """Return one row as text."""
    return (
        f"  shift {row['shift']:4.1f}  {row['solver']:6s}{row['evaluations']:3d} evaluations  "
        f"opening_corr {row['opening_corr']:.4f}  lip PSNR {row['lip_psnr']:.2f} dB  "
        f"to the exact solution {row['exact_psnr']:.2f} dB"
    )
