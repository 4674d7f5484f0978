"""Random models of any recipe, decided by a seed, for tests of everything but looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from xdub.config import EXPERTS, Recipe, load_recipe, recipe_from_dict
from xdub.config.sections import CODEC_FACTORS
from xdub.model.build import build_dit
from xdub.model.bundle import save_dit
from xdub.model.codec import LinearCodec
from xdub.model.dit import VideoDiT
from xdub.model.lora import add_expert, save_expert, set_expert

SMALL = (
    *(
        "model.hidden_size=48",
        "model.num_heads=2",
        "model.num_layers=2",
        "codec.channels=16",
        "video.size=32",
    ),
    *("dub.sampler_steps=2", "pairs.sampler_steps=2", "lora.rank=2", "pairs.batch=3"),
)


def small_recipe(*overrides: str) -> Recipe:
    """The tiny recipe with almost no parameters."""
    return load_recipe("tiny", [*SMALL, *overrides])


def random_codec(channels: int) -> LinearCodec:
    """Orthonormal random bases: the geometry of the real codec; a random model's pictures are faint."""
    generator = torch.Generator().manual_seed(0)
    time, space = CODEC_FACTORS["linear"]
    patch = 3 * space**2
    first = torch.linalg.qr(torch.randn(patch, channels, generator=generator))[0].T
    rest = torch.linalg.qr(torch.randn(time * patch, channels, generator=generator))[0].T
    std = torch.full((channels,), 0.03)
    return LinearCodec(first, rest, std, std.clone(), torch.zeros(3))


def random_dit(recipe: Recipe, phase: str, codec: LinearCodec, seed: int = 1) -> VideoDiT:
    """A backbone whose output is not zero, unlike that of a fresh one."""
    dit = build_dit(recipe, phase, codec, seed=seed)
    torch.nn.init.normal_(dit.proj_out.weight, std=0.05, generator=torch.Generator().manual_seed(seed))
    return dit.eval().requires_grad_(False)


def add_experts(editor: VideoDiT, recipe: Recipe, seed: int = 1) -> None:
    """Random experts that do something, all of them off."""
    for name in EXPERTS:
        add_expert(editor, name, recipe.lora)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in editor.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    editor.requires_grad_(False)
    set_expert(editor, None)


class Uncached(nn.Module):
    """A backbone that computes everything at every step, in place of one that is prepared."""

    def __init__(self, dit: VideoDiT) -> None:
        super().__init__()
        self.dit, self.cfg = dit, dit.cfg

    def prepare(self, z_ref: Tensor, audio: Tensor, starts: Tensor, **conditions: Any) -> tuple:
        return z_ref, audio, starts, conditions

    def denoise(self, z_t: Tensor, t: Tensor, given: tuple) -> Tensor:
        z_ref, audio, starts, conditions = given
        return self.dit(z_t, z_ref, t, audio, starts, **conditions)


def write_random_bundle(folder: Path, recipe: Recipe, *, experts: bool = True) -> Recipe:
    """A model folder with codec, generator, editor and its experts; returns the recipe that names its codec."""
    codec = random_codec(recipe.codec.channels)
    codec.save(folder / "codec.safetensors")
    raw = recipe.to_dict()
    raw["codec"]["path"] = str(folder / "codec.safetensors")
    recipe = recipe_from_dict(raw)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(raw))
    save_dit(random_dit(recipe, "generator", codec), folder / "generator.safetensors")
    editor = random_dit(recipe, "editor", codec)
    save_dit(editor, folder / "editor.safetensors")
    for name in EXPERTS if experts else ():
        add_expert(editor, name, recipe.lora)
        save_expert(editor, name, folder / f"{name}.safetensors")
    return recipe
