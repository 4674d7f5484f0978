"""Recipes: one strict loader for every number that code needs (`xdub/recipes/*.yaml`, `--set a.b=c`)."""

from __future__ import annotations

from xdub.config.loader import load_recipe, parse_override, recipe_from_dict, shipped_recipes
from xdub.config.model_folder import SHIPPED_MODEL, ModelFolder
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
from xdub.config.weights import check_weights

__all__ = [
    "PHASES",
    "SHIPPED_MODEL",
    "AudioConfig",
    "CodecConfig",
    "DubConfig",
    "LoraConfig",
    "ModelConfig",
    "ModelFolder",
    "PairsConfig",
    "PerceptionConfig",
    "PhaseConfig",
    "Recipe",
    "TrainConfig",
    "VideoConfig",
    "check_weights",
    "load_recipe",
    "parse_override",
    "recipe_from_dict",
    "shipped_recipes",
]
