"""Small random models: enough for everything but looks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from xdub.config import Recipe, load_recipe
from xdub.dub.windows import WindowSampler
from xdub.model.build import build_dit
from xdub.model.codec import LinearCodec


def random_codec(channels: int) -> LinearCodec:
    """Orthonormal random bases: the geometry of the real one."""
    generator = torch.Generator().manual_seed(0)
    first = torch.linalg.qr(torch.randn(192, channels, generator=generator))[0].T
    rest = torch.linalg.qr(torch.randn(768, channels, generator=generator))[0].T
    return LinearCodec(first, rest, torch.ones(channels), torch.ones(channels), torch.zeros(3))


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    small = [
        "model.hidden_size=48",
        "model.num_heads=2",
        "model.num_layers=2",
        "codec.channels=16",
        "video.size=32",
    ]
    return load_recipe("tiny", [*small, "dub.sampler_steps=2", "pairs.sampler_steps=2", "lora.rank=2"])


@pytest.fixture(scope="session")
def make_sampler(recipe: Recipe) -> Callable[..., WindowSampler]:
    def make(phase: str, **options) -> WindowSampler:
        codec = random_codec(recipe.codec.channels)
        dit = build_dit(recipe, phase, codec, seed=1).eval().requires_grad_(False)
        torch.nn.init.normal_(dit.proj_out.weight, std=0.05, generator=torch.Generator().manual_seed(2))
        return WindowSampler(dit, codec, **({"num_steps": 2} | options))

    return make


@pytest.fixture()
def crops() -> Callable[[int, int], np.ndarray]:
    def make(num_frames: int, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (num_frames, 32, 32, 3), np.uint8)

    return make
