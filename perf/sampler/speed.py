"""Seconds per clip before and after each thing that makes the sampler faster, side by side in one run.

Seconds are the processor's own: neighbours on a shared machine take turns, not work. What the clock on the wall said is
kept beside them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from torch import Tensor

from perf.sampler.heads import Head, tracks
from xdub.config import Recipe
from xdub.dub.testing import Uncached
from xdub.dub.tracks import generate
from xdub.dub.window_sampler import WindowSampler, bands_of
from xdub.model.attention import TextCrossAttention
from xdub.model.bundle import Bundle
from xdub.model.conditions import TextKeys

BASELINE = "nothing: all of it at every step, one clip at a time"
CACHED = "conditions kept"
ANSWERED = "and one-token prompt answered once"


@dataclass(frozen=True, kw_only=True)
class Level:
    """One way to sample the same clips."""

    name: str
    batch: int = 1
    cached: bool = True
    answered: bool = True
    compiled: bool = False


def ladder(batches: Sequence[int], compiled: bool) -> list[Level]:
    """Each with what the ones before it have; a compiled step for one clip and for the largest batch."""
    levels = [
        Level(name=BASELINE, cached=False, answered=False),
        Level(name=CACHED, answered=False),
        Level(name=ANSWERED),
        *(Level(name=f"and {n} clips together", batch=n) for n in batches),
    ]
    if compiled:
        levels += [
            Level(name=f"and compiled, {n} clip{'s' if n > 1 else ''}", batch=n, compiled=True)
            for n in dict.fromkeys((1, *batches[-1:]))
        ]
    return levels


def measure(
    recipe: Recipe, bundle: Bundle, model: str, heads: Sequence[Head], levels: Sequence[Level], repeats: int
) -> list[dict[str, Any]]:
    """One row a level; repetitions take turns, so that a busy neighbour hits all levels alike."""
    masked = model == "generator"
    films = tracks(heads, bundle.audio_encoder, 0, masked=masked)
    settings = recipe.pairs if masked else recipe.dub
    frames = recipe.pairs.segment_frames if masked else recipe.dub.window
    runs = [_sampler(recipe, bundle, model, level) for level in levels]

    def run(n: int) -> tuple[float, float, np.ndarray]:
        with nullcontext() if levels[n].answered else _asked():
            begin, wall = time.process_time(), time.perf_counter()
            made = generate(
                films, runs[n], window=frames, motion=settings.motion_frames, batch=levels[n].batch
            )
            return time.process_time() - begin, time.perf_counter() - wall, np.stack(made)

    first = [run(n) for n in range(len(levels))]  # warms up and compiles
    seconds: list[list[float]] = [[] for _ in levels]
    walls: list[list[float]] = [[] for _ in levels]
    for _ in range(repeats):
        for n in range(len(levels)):
            taken, wall, _ = run(n)
            seconds[n].append(taken / len(films))
            walls[n].append(wall / len(films))
    base = statistics.median(seconds[0])
    rows = []
    for n, (level, taken) in enumerate(zip(levels, seconds, strict=True)):
        median = statistics.median(taken)
        ratios = [one / other for one, other in zip(seconds[0], taken, strict=True)]
        row = {"model": model, "level": level.name, "batch": level.batch, "seconds_per_clip": median}
        row |= {"times_faster": base / median, "times_faster_range": [min(ratios), max(ratios)]}
        row |= {"all_seconds": taken, "all_wall_seconds": walls[n]}
        row |= {"largest_difference": float(np.abs(first[n][2] - first[0][2]).max())}
        rows.append(row | ({"first_call_seconds": first[n][1]} if level.compiled else {}))
    return rows


def _sampler(recipe: Recipe, bundle: Bundle, model: str, level: Level) -> WindowSampler:
    dit = bundle.generator if model == "generator" else bundle.editor
    settings = recipe.pairs if model == "generator" else recipe.dub
    return WindowSampler(
        dit if level.cached else Uncached(dit),
        bundle.codec,
        num_steps=settings.sampler_steps,
        shift=settings.sampler_shift,
        bands=() if model == "generator" else bands_of(recipe, bundle.experts),
        compile_for=level.batch if level.compiled else None,
    )


@contextmanager
def _asked() -> Iterator[None]:
    """Every token asks the prompt at every step, as in training."""

    def keys(self: TextCrossAttention, text: Tensor) -> TextKeys:
        return self.keys(text)

    with mock.patch.object(TextCrossAttention, "prepared", keys):
        yield


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        if row["level"] == BASELINE:
            lines.append(f"{row['model']}: seconds a clip, times faster than the first, difference of 255")
        low, high = row["times_faster_range"]
        first = f"  (first call {row['first_call_seconds']:.0f} s)" if "first_call_seconds" in row else ""
        lines.append(
            f"  {row['level']:54s}{row['seconds_per_clip']:8.4f}{row['times_faster']:7.2f}x"
            f" ({low:.2f}..{high:.2f})  {row['largest_difference']:.4f}{first}"
        )
    return "\n".join(lines)
