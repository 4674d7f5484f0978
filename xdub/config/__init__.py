"""Recipes: one strict loader for every number that code needs (`xdub/recipes/*.yaml`, `--set a.b=c`)."""

from __future__ import annotations

from xdub.config.loader import load_recipe, parse_override, recipe_from_dict, shipped_recipes
from xdub.config.recipe import PHASES, Recipe
from xdub.config.sections import (
    AudioConfig,
    CodecConfig,
    DubConfig,
    LoraConfig,
    ModelConfig,
    PairsConfig,
    PerceptionConfig,
    PhaseConfig,
    TrainConfig,
    VideoConfig,
)

__all__ = [
    "PHASES",
    "AudioConfig",
    "CodecConfig",
    "DubConfig",
    "LoraConfig",
    "ModelConfig",
    "PairsConfig",
    "PerceptionConfig",
    "PhaseConfig",
    "Recipe",
    "TrainConfig",
    "VideoConfig",
    "load_recipe",
    "parse_override",
    "recipe_from_dict",
    "shipped_recipes",
]
