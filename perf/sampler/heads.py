"""Freshly rendered heads that no training set may contain, each with a twin that says the new words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xdub.config import Recipe
from xdub.data.clip import Clip
from xdub.dub.tracks import Track
from xdub.model.audio_encoder import AudioEncoder


@dataclass(frozen=True)
class Head:
    """Face crops of S x S px, F frames."""

    clip: Clip
    twin: Clip


def render_heads(recipe: Recipe, count: int, seed: int, frames: int | None = None) -> list[Head]:
    """One clip of each of ``count`` identities, as long as the recipe's if not told."""
    from xdub.render import make_clips
    from xdub.render.clips import HELD_OUT, TAKES

    video = recipe.video
    pairs = make_clips(
        seed,
        [HELD_OUT + number * TAKES for number in range(count)],
        size=video.size,
        frames=frames or video.clip_frames,
        crop_scale=video.crop_scale,
    )
    return [Head(pair.clip, pair.twin) for pair in pairs]


def tracks(heads: Sequence[Head], encoder: AudioEncoder, seed: int, *, masked: bool) -> list[Track]:
    """What the pair factory makes of the clips, with the twins' words; ``seed`` decides the noise."""
    return [
        Track(
            frames=head.clip.frames,
            features=encoder.encode(head.twin.audio),
            noise=("perf sampler", seed, head.clip.clip_id),
            hidden=head.clip.visible_mask if masked else None,
        )
        for head in heads
    ]


def pixels(film: np.ndarray) -> np.ndarray:
    """float32 [F,S,S,3] in 0..255 -> uint8."""
    return np.rint(film).clip(0, 255).astype(np.uint8)
