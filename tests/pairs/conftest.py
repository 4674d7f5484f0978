"""A small data set and a small random generator."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from xdub.config import Recipe
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.dub.testing import small_recipe, write_random_bundle

settings.register_profile("unhurried", deadline=None, max_examples=30)
settings.load_profile("unhurried")

FRAMES = (29, 25, 7, 33, 29, 29, 29)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    """(model folder, its recipe): three clips a unit, all twins; the filters accept every identity."""
    folder = tmp_path_factory.mktemp("models")
    thresholds = ("pairs.mouth_threshold=0.5", "pairs.identity_threshold=-1", "pairs.render_twins=0.3")
    return folder, write_random_bundle(folder, small_recipe(*thresholds, "pairs.relight=0.5"), experts=False)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips of three speakers and of several lengths; the last is the first one's twin."""
    folder = tmp_path_factory.mktemp("data")
    first = make_clip(0, num_frames=FRAMES[0])
    twin = make_clip(0, num_frames=FRAMES[0])
    frames = twin.frames.copy()
    frames[:, 18:30, 10:22] //= 2
    twin = make_clip(
        6,
        num_frames=FRAMES[0],
        frames=frames,
        clip_id="twin0000twin0000",
        twin_of=first.clip_id,
        speaker="speaker0",
    )
    with ShardWriter(folder, rows_per_shard=3) as writer:
        for seed, frames in enumerate(FRAMES[:-1]):
            writer.add(make_clip(seed, num_frames=frames))
        writer.add(twin)
    return folder
