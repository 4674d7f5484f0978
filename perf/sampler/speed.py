"""Seconds per clip before and after each speed-up of the sampler, side by side in one run.

Seconds are processor time, which other load on a shared machine affects less. Wall-clock time is kept beside them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast
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
from xdub.model.dit import VideoDiT

BASELINE = "nothing: all of it at every step, one clip at a time"
CACHED = "conditions kept"
ANSWERED = "and one-token prompt answered once"
"""Names of the first levels in the result file."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One way to sample the same clips."""

    name: str
    """Name in the result file."""
    batch: int = 1
    """Clips sampled together."""
    cached: bool = True
    """True if conditions are computed once per window."""
    answered: bool = True
    """True if a prompt of one token is answered once per window."""
    compiled: bool = False
    """True if the model is compiled."""


def ladder(batches: Sequence[int], compiled: bool) -> list[Level]:
    """Return the levels, each with the speed-ups before it; compiled levels are for one clip and the largest batch."""
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
    """Return a row per level; repetitions take turns, so that other load affects all levels alike."""
    masked = model == "generator"
    films = tracks(heads, 0, masked=masked)
    settings = recipe.pairs if masked else recipe.dub
    frames = recipe.pairs.segment_frames if masked else recipe.dub.window
    runs = [_sampler(recipe, bundle, model, level) for level in levels]

    def run(n: int) -> tuple[float, float, np.ndarray]:
        with nullcontext() if levels[n].answered else _uncached_prompt():
            begin, wall = time.process_time(), time.perf_counter()
            sampled = generate(
                films, runs[n], window=frames, motion=settings.motion_frames, batch=levels[n].batch
            )
            return time.process_time() - begin, time.perf_counter() - wall, np.stack(sampled)

    # The first runs warm up and compile.
    first = [run(n) for n in range(len(levels))]
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
        ratios = [first_time / own_time for first_time, own_time in zip(seconds[0], taken, strict=True)]
        row: dict[str, Any] = {
            "model": model,
            "level": level.name,
            "batch": level.batch,
            "seconds_per_clip": median,
        }
        row |= {"times_faster": base / median, "times_faster_range": [min(ratios), max(ratios)]}
        row |= {"all_seconds": taken, "all_wall_seconds": walls[n]}
        row |= {"largest_difference": float(np.abs(first[n][2] - first[0][2]).max())}
        rows.append(row | ({"first_call_seconds": first[n][1]} if level.compiled else {}))
    return rows


def _sampler(recipe: Recipe, bundle: Bundle, model: str, level: Level) -> WindowSampler:
    dit = bundle.generator if model == "generator" else bundle.editor
    assert dit is not None
    # `Uncached` has the methods that the sampler calls.
    network = dit if level.cached else cast(VideoDiT, Uncached(dit))
    settings = recipe.pairs if model == "generator" else recipe.dub
    return WindowSampler(
        network,
        bundle.codec,
        bundle.audio_encoder,
        num_steps=settings.sampler_steps,
        shift=settings.sampler_shift,
        bands=() if model == "generator" else bands_of(recipe, bundle.experts),
        compile_for=level.batch if level.compiled else None,
    )


@contextmanager
def _uncached_prompt() -> Iterator[None]:
    """Make every token attend to the prompt at every step, as in training."""

    def keys(self: TextCrossAttention, text: Tensor) -> TextKeys:
        return self.keys(text)

    with mock.patch.object(TextCrossAttention, "prepared", keys):
        yield


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as text."""
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
