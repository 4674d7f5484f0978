"""Random models of any recipe, decided by a seed, for tests of everything but looks."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from xdub.config import Recipe, load_recipe, recipe_from_dict
from xdub.model.build import build_dit
from xdub.model.bundle import save_dit
from xdub.model.codec import LinearCodec
from xdub.model.dit import VideoDiT
from xdub.model.lora import EXPERTS, add_expert, save_expert

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
    first = torch.linalg.qr(torch.randn(192, channels, generator=generator))[0].T
    rest = torch.linalg.qr(torch.randn(768, channels, generator=generator))[0].T
    std = torch.full((channels,), 0.03)
    return LinearCodec(first, rest, std, std.clone(), torch.zeros(3))


def random_dit(recipe: Recipe, phase: str, codec: LinearCodec, seed: int = 1) -> VideoDiT:
    """A backbone whose output is not zero, unlike that of a fresh one."""
    dit = build_dit(recipe, phase, codec, seed=seed)
    torch.nn.init.normal_(dit.proj_out.weight, std=0.05, generator=torch.Generator().manual_seed(seed))
    return dit.eval().requires_grad_(False)


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
