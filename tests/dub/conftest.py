"""Small random models, which suffice for every test but those of picture quality."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from xdub.config import Recipe
from xdub.dub.testing import small_recipe, write_random_bundle
from xdub.dub.window_sampler import WindowSampler
from xdub.model.audio_encoder import LogMelEncoder
from xdub.model.testing import random_backbone, random_codec

settings.register_profile("unhurried", deadline=None, max_examples=30)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return small_recipe()


@pytest.fixture(scope="session")
def make_sampler(recipe: Recipe) -> Callable[..., WindowSampler]:
    def make(phase: str, **options) -> WindowSampler:
        codec, options = random_codec(recipe.codec.channels), {"num_steps": 2} | options
        return WindowSampler(
            random_backbone(recipe, phase, codec), codec, LogMelEncoder(recipe.audio.dim), **options
        )

    return make


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_random_bundle(folder, recipe)
    return folder


@pytest.fixture()
def crops() -> Callable[[int, int], np.ndarray]:
    def make(num_frames: int, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (num_frames, 32, 32, 3), np.uint8)

    return make
