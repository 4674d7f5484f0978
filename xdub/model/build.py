"""Construction of the backbone that a recipe and a phase need."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from xdub.config import Recipe, inpaints
from xdub.files.tensors import read_tensors
from xdub.model.backbone import Backbone
from xdub.model.codec import Codec
from xdub.model.dit import DiTConfig, VideoDiT


def dit_config(recipe: Recipe, phase: str) -> DiTConfig:
    """Return the configuration of the paper's network; a phase that inpaints has z_mask on its input channels (B.2)."""
    return DiTConfig(
        **vars(recipe.model),
        geometry=recipe.codec.geometry,
        masked_input=inpaints(phase),
        audio_dim=recipe.audio.dim,
    )


def build_backbone(
    recipe: Recipe, phase: str, codec: Codec | None = None, *, seed: int | None = None
) -> Backbone:
    """Build a randomly initialised backbone for ``phase``.

    The channel deviations of ``codec`` scale input and output; None: ones. ``seed`` fixes the initialisation without
    touching global state; None: the global generator draws it.
    """
    latent_std = None if codec is None else codec.channel_std
    if seed is None:
        return VideoDiT(dit_config(recipe, phase), latent_std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VideoDiT(dit_config(recipe, phase), latent_std)


def load_backbone(recipe: Recipe, phase: str, codec: Codec, path: Path) -> Backbone:
    """Build a backbone with the weights of a safetensors file: eval mode, fp32, frozen.

    Raise UserError if the file cannot be read or does not fit the recipe.
    """
    model = build_backbone(recipe, phase, codec, seed=0)
    state: dict[str, Tensor] = {name: value.float() for name, value in read_tensors(path).items()}
    model.load_upstream(state, str(path))
    return model.eval().requires_grad_(False)
