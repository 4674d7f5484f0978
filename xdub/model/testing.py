"""Random codecs and backbones, decided by a seed, for tests that do not judge pictures."""

from __future__ import annotations

from typing import Any

import torch

from xdub.config import EXPERTS, Recipe
from xdub.config.network_sections import CODEC_FACTORS
from xdub.geometry import CodecGeometry
from xdub.model.backbone import Backbone
from xdub.model.build import build_backbone
from xdub.model.codec import Codec, LinearCodec
from xdub.model.dit import VideoDiT
from xdub.model.lora import add_expert, set_expert
from xdub.model.wan.config import WanConfig


def random_codec(channels: int) -> LinearCodec:
    """Build a codec with orthonormal random bases and the real geometry; a random model's pictures are faint."""
    generator = torch.Generator().manual_seed(0)
    time, space = CODEC_FACTORS["linear"]
    patch = 3 * space**2
    first = torch.linalg.qr(torch.randn(patch, channels, generator=generator))[0].T
    rest = torch.linalg.qr(torch.randn(time * patch, channels, generator=generator))[0].T
    std = torch.full((channels,), 0.03)
    return LinearCodec(first, rest, std, std.clone(), torch.zeros(3))


def random_backbone(recipe: Recipe, phase: str, codec: Codec, seed: int = 1) -> Backbone:
    """Build a backbone whose output is not zero, unlike that of a fresh one."""
    model = build_backbone(recipe, phase, codec, seed=seed)
    assert isinstance(model, VideoDiT)
    torch.nn.init.normal_(model.proj_out.weight, std=0.05, generator=torch.Generator().manual_seed(seed))
    return model.eval().requires_grad_(False)


def small_wan(geometry: CodecGeometry, **changes: Any) -> WanConfig:
    """Return the configuration of a Wan of two blocks of width 48, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=48, num_heads=2, num_layers=2, ffn_dim=60, text_dim=12)
    sizes |= {"order": "reference_first"} | changes
    return WanConfig(kind="wan", geometry=geometry, **sizes)


def add_experts(editor: Backbone, recipe: Recipe, seed: int = 1) -> None:
    """Add random experts whose output is not zero, all of them inactive."""
    for name in EXPERTS:
        add_expert(editor, name, recipe.lora)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in editor.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    editor.requires_grad_(False)
    set_expert(editor, None)
