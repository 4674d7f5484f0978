"""Freshly rendered heads that no training set may contain, each with a twin that speaks the new words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xdub.config import Recipe
from xdub.data.clip import Clip
from xdub.dub.tracks import Track


@dataclass(frozen=True)
class Head:
    """One rendered head: face crops of S x S px, F frames."""

    clip: Clip
    """Clip to dub."""
    twin: Clip
    """The same head speaking the new words."""


def render_heads(recipe: Recipe, count: int, seed: int, frames: int | None = None) -> list[Head]:
    """Render one clip of each of ``count`` identities; ``frames`` None: the recipe's length."""
    from xdub.render.clips import FIRST_HELD_OUT, TAKES, make_clips

    video = recipe.video
    pairs = make_clips(
        seed,
        [FIRST_HELD_OUT + number * TAKES for number in range(count)],
        size=video.size,
        frames=frames or video.clip_frames,
        crop_scale=video.crop_scale,
    )
    return [Head(pair.clip, pair.twin) for pair in pairs]


def tracks(heads: Sequence[Head], seed: int, *, masked: bool) -> list[Track]:
    """Return the clips as the pair factory's tracks, with the twins' words; ``seed`` decides the noise."""
    return [
        Track(
            frames=head.clip.frames,
            sound=head.twin.sound,
            noise=("perf sampler", seed, head.clip.clip_id),
            hidden=head.clip.visible_mask if masked else None,
        )
        for head in heads
    ]


def pixels(film: np.ndarray) -> np.ndarray:
    """Round float32 [F, S, S, 3] in 0..255 to uint8."""
    return np.rint(film).clip(0, 255).astype(np.uint8)
