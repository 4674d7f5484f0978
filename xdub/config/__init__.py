"""Recipes: one strict loader for every number that code needs (`xdub/recipes/*.yaml`, `--set a.b=c`)."""

from __future__ import annotations

from xdub.config.embedders import EMBEDDERS, Embedder
from xdub.config.loader import load_recipe, parse_override, recipe_from_dict
from xdub.config.lora_section import LORA_TARGETS, LoraConfig, is_target
from xdub.config.mask_section import MasksConfig
from xdub.config.network_sections import AudioConfig, CodecConfig, PerceptionConfig
from xdub.config.phase_rules import check_phase, has_adapter, nothing_frozen, tunes_open_weights
from xdub.config.phases import (
    EXPERTS,
    PHASES,
    TRAINABLE,
    Phase,
    expert_of,
    in_model,
    inpaints,
    needs_pairs,
    phase_facts,
)
from xdub.config.recipe import Recipe
from xdub.config.recipe_file import base_files, published_recipes, shipped_recipes
from xdub.config.sampling_sections import DubConfig, GuidanceConfig, PairsConfig
from xdub.config.screen_section import ScreenConfig
from xdub.config.sections import (
    CropKind,
    ModelConfig,
    PhaseConfig,
    Policy,
    TokenOrder,
    TrainConfig,
    VideoConfig,
)
from xdub.config.shipped import SHIPPED_MODEL, ModelFolder
from xdub.config.speech_parts import speech_parts
from xdub.config.syncnet_section import SyncNetConfig
from xdub.config.weight_files import (
    DUB,
    IMPORT,
    PACKAGED,
    PAIRS,
    PREPARE,
    RANDOM,
    SPEAKERS,
    base_path,
    identity_without_paths,
    is_packaged,
    located,
    network_digests,
    network_path,
    network_settings,
    prompt_path,
    required_path,
    without_paths,
)

__all__ = [
    "base_path",
    "DUB",
    "EMBEDDERS",
    "EXPERTS",
    "IMPORT",
    "LORA_TARGETS",
    "PACKAGED",
    "PAIRS",
    "PREPARE",
    "PHASES",
    "RANDOM",
    "ScreenConfig",
    "SHIPPED_MODEL",
    "SPEAKERS",
    "TRAINABLE",
    "AudioConfig",
    "CodecConfig",
    "CropKind",
    "DubConfig",
    "Embedder",
    "GuidanceConfig",
    "LoraConfig",
    "MasksConfig",
    "ModelConfig",
    "ModelFolder",
    "PairsConfig",
    "PerceptionConfig",
    "Phase",
    "PhaseConfig",
    "Policy",
    "Recipe",
    "SyncNetConfig",
    "TokenOrder",
    "TrainConfig",
    "VideoConfig",
    "base_files",
    "check_phase",
    "has_adapter",
    "expert_of",
    "in_model",
    "identity_without_paths",
    "inpaints",
    "is_packaged",
    "is_target",
    "load_recipe",
    "located",
    "network_digests",
    "needs_pairs",
    "nothing_frozen",
    "network_path",
    "network_settings",
    "prompt_path",
    "parse_override",
    "phase_facts",
    "published_recipes",
    "recipe_from_dict",
    "required_path",
    "shipped_recipes",
    "speech_parts",
    "tunes_open_weights",
    "without_paths",
]
