"""Small recipes and random model folders, decided by a seed, for tests that do not judge pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml
from torch import Tensor

from xdub.config import EXPERTS, Recipe, load_recipe, recipe_from_dict
from xdub.model.backbone import Backbone
from xdub.model.bundle import write_weights
from xdub.model.lora import add_expert, save_expert
from xdub.model.testing import random_backbone, random_codec

SMALL = (
    "model.hidden_size=48",
    "model.num_heads=2",
    "model.num_layers=2",
    "codec.channels=16",
    "video.size=32",
    "dub.sampler_steps=2",
    "pairs.sampler_steps=2",
    "lora.rank=2",
    "pairs.batch=3",
)
"""Settings that make a recipe small enough for a test."""


def small_recipe(*overrides: str) -> Recipe:
    """Load the tiny recipe with almost no parameters."""
    return load_recipe("tiny", [*SMALL, *overrides])


class Uncached(Backbone[Callable[[Tensor, Tensor], Tensor]]):
    """Backbone that computes everything at every step, for comparison with one that shares work between steps."""

    def __init__(self, inner: Backbone) -> None:
        super().__init__(inner.geometry, masked_input=inner.masked_input, order=inner.order)
        self.inner = inner
        self.speech = inner.speech

    def conditions(
        self,
        z_ref: Tensor,
        audio: Tensor,
        starts: Tensor,
        *,
        z_mask: Tensor | None = None,
        motion_frames: Tensor | int = 0,
        audio_enabled: Tensor | None = None,
        text: Tensor | None = None,
        reuse: bool = True,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the forward pass of training with these inputs; ``reuse`` is ignored."""
        return partial(
            self.inner,
            z_ref=z_ref,
            audio=audio,
            starts=starts,
            z_mask=z_mask,
            motion_frames=motion_frames,
            audio_enabled=audio_enabled,
            text=text,
        )

    def velocity(self, z_t: Tensor, t: Tensor, conditions: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return v_hat of the forward pass."""
        return conditions(z_t, t)


def write_random_bundle(folder: Path, recipe: Recipe, *, experts: bool = True) -> Recipe:
    """Write a model folder with codec, generator, editor and its experts; return the recipe that names its codec."""
    codec = random_codec(recipe.codec.channels)
    codec.save(folder / "codec.safetensors")
    raw = recipe.to_dict()
    raw["codec"]["path"] = str(folder / "codec.safetensors")
    recipe = recipe_from_dict(raw)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(raw))
    write_weights(random_backbone(recipe, "generator", codec), folder / "generator.safetensors")
    editor = random_backbone(recipe, "editor", codec)
    write_weights(editor, folder / "editor.safetensors")
    for name in EXPERTS if experts else ():
        add_expert(editor, name, recipe.lora)
        save_expert(editor, name, folder / f"{name}.safetensors")
    return recipe
