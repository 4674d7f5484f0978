"""Small fixtures for real training: a two-layer recipe, a random codec and a few synthetic clips."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xdub.config import Recipe, load_recipe
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.model.codec import LinearCodec

CHANNELS, SIZE, FRAMES = 8, 32, 13


def random_codec(path: Path) -> Path:
    """Write a linear codec with orthonormal rows for the recipe's codec.path."""
    generator = torch.Generator().manual_seed(0)
    first, rest = (torch.linalg.qr(torch.randn(n, CHANNELS, generator=generator))[0].T for n in (192, 768))
    std = torch.linspace(2, 0.5, CHANNELS)
    LinearCodec(first.contiguous(), rest.contiguous(), std, std.clone(), torch.zeros(3)).save(path)
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory):
    """Return a function of overrides -> two-layer Recipe that trains on 32 px clips of 13 frames."""
    codec = random_codec(tmp_path_factory.mktemp("codec") / "codec.safetensors")

    def make(*overrides: str) -> Recipe:
        shape = [
            f"video.size={SIZE}",
            f"video.clip_frames={FRAMES}",
            f"codec.channels={CHANNELS}",
            f"codec.path={codec}",
            "model.hidden_size=32",
            "model.num_heads=2",
            "model.num_layers=2",
            "lora.rank=2",
            "lora.alpha=2",
            "dub.window=13",
            "pairs.segment_frames=13",
            # Drawn clips have no speech.
            "phases.lip.sync_accuracy=0",
        ]
        shape += [f"phases.{name}.window=13" for name in ("generator", "editor", "lip", "texture")]
        train = [
            "train.steps=6",
            "train.global_batch=4",
            "train.micro_batch=2",
            "train.warmup=2",
            "train.lr=1e-3",
            "train.checkpoint_every=2",
            "train.log_every=2",
            "train.num_threads=1",
        ]
        return load_recipe("tiny", [*shape, *train, *overrides])

    return make


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 12 clips without pairs."""
    return _write(tmp_path_factory.mktemp("clips"), pair=False)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 12 pairs of clips."""
    return _write(tmp_path_factory.mktemp("pairs"), pair=True)


def _write(folder: Path, *, pair: bool) -> Path:
    with ShardWriter(folder, rows_per_shard=4) as writer:
        for seed in range(12):
            writer.add(make_clip(seed, num_frames=FRAMES + 2 * (seed % 2), size=SIZE, pair=pair))
    return folder
