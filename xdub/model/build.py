"""Construction of the backbone that a recipe and a phase need."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from xdub.config import Recipe, base_path, inpaints, prompt_path
from xdub.errors import UserError
from xdub.files.weight_folder import WeightFolder
from xdub.model.backbone import Backbone
from xdub.model.codec import Codec
from xdub.model.dit import DiTConfig, VideoDiT
from xdub.model.lora import is_adapter, load_tuning
from xdub.model.prompt import Prompt, read_prompt
from xdub.model.wan.config import WanConfig
from xdub.model.wan.network import WanDiT
from xdub.perception.open_models.wan_config import check_stated
from xdub.perception.open_models.wan_files import find_wan
from xdub.precision import dtype_of


def dit_config(recipe: Recipe, phase: str) -> DiTConfig:
    """Return the configuration of the paper's network; a phase that inpaints has z_mask on its input channels (B.2)."""
    return DiTConfig(**_facts(recipe, phase))


def wan_config(recipe: Recipe, phase: str) -> WanConfig:
    """Return the configuration of a Wan; a phase that inpaints embeds z_mask, too (B.2)."""
    return WanConfig(**_facts(recipe, phase))


def _facts(recipe: Recipe, phase: str) -> dict[str, Any]:
    return {
        **{field.name: getattr(recipe.model, field.name) for field in fields(recipe.model)},
        "geometry": recipe.codec.geometry,
        "masked_input": inpaints(phase),
        "audio_dim": recipe.audio.dim,
    }


def build_backbone(
    recipe: Recipe,
    phase: str,
    codec: Codec | None = None,
    *,
    seed: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Backbone:
    """Build a backbone for ``phase``: from the recipe's open weights (`model.base`), else randomly initialised.

    On the meta device no file is read.

    Args:
        codec: its channel deviations scale input and output of the paper's network; None: ones.
        seed: seed of the initialisation, which then leaves global state alone; None: the global generator draws it.
        dtype: number format of the open weights; new parameters are fp32.

    Raises:
        UserError: the open weights or the prompt are missing, damaged or of another network.
    """
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_backbone(recipe, phase, codec, dtype=dtype)
    if recipe.model.kind == "xdub":
        return VideoDiT(dit_config(recipe, phase), None if codec is None else codec.channel_std)
    config = wan_config(recipe, phase)
    if torch.get_default_device().type == "meta":
        return WanDiT(config, _planned_prompt(config))
    prompt = load_prompt(recipe)
    base = base_path(recipe)
    if base is None:
        return WanDiT(config, prompt)
    weights = open_weights(base)
    _check_base(config, weights)
    return _filled(config, prompt, weights, dtype)


def _check_base(config: WanConfig, weights: WeightFolder) -> None:
    """Raise UserError for open weights that fit the shapes of a recipe's network, but are of another one."""
    check_stated(weights, num_heads=config.num_heads, eps=config.eps, cross_attn_norm=config.cross_attn_norm)


def _filled(config: WanConfig, prompt: Prompt | None, weights: WeightFolder, dtype: torch.dtype) -> WanDiT:
    """Return a Wan with weights, which may lack its additions; no tensor is initialised that the weights have."""
    with torch.device("meta"):
        model = WanDiT(config, prompt)
    model.load_upstream(weights, dtype)
    model.reset_additions()
    return model


def open_weights(path: str) -> WeightFolder:
    """Return the files of `model.base`. Raise UserError if there is no Wan."""
    if not Path(path).exists():
        raise UserError(
            f"model.base={path}: there is no such file or folder of open weights; name theirs with --set model.base=DIR"
        )
    weights = find_wan(Path(path))
    if weights is None:
        raise UserError(
            f"model.base={path}: holds no weights of Wan 2.1 T2V, Wan 2.2 TI2V, X-Dub or TBDub; `xdub weights list` "
            "shows what can be fetched"
        )
    return weights


def load_prompt(recipe: Recipe) -> Prompt:
    """Return the recipe's embedded prompt. Raise UserError if there is none, or one of another width."""
    path = prompt_path(recipe)
    prompt = read_prompt(path)
    if prompt.width != recipe.model.text_dim:
        raise UserError(f"{path}: has width {prompt.width}, but model.text_dim={recipe.model.text_dim}")
    return prompt


def _planned_prompt(config: WanConfig) -> Prompt:
    """Return a prompt in the shape of the null prompt: one row, and the zero rows that one row stands for."""
    assert config.text_dim is not None
    return Prompt(rows=torch.zeros(1, config.text_dim), padding=511)


def load_network(
    recipe: Recipe,
    phase: str,
    weights: WeightFolder,
    codec: Codec | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    merge: bool = True,
) -> Backbone:
    """Build a backbone with the weights of a phase: a whole network, or an adapter on the recipe's open weights.

    A whole network needs no open weights. ``merge`` as in `load_tuning`; other arguments as in `build_backbone`.
    Raise UserError if the weights do not fit the recipe, or an adapter's open weights are missing.
    """
    if is_adapter(weights):
        if base_path(recipe) is None:
            raise UserError(
                f"{weights.path}: is an adapter on open weights; name them with --set model.base=DIR, or put them into "
                "the folder of --set weights=DIR as `wan`"
            )
        model = build_backbone(recipe, phase, codec, seed=seed, dtype=dtype)
        load_tuning(model, weights, recipe.lora, merge=merge)
        return model
    if recipe.model.kind == "xdub":
        model = build_backbone(recipe, phase, codec, seed=seed)
        model.load_upstream(weights)
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _filled(wan_config(recipe, phase), load_prompt(recipe), weights, dtype)


def tuned_open_weights(
    recipe: Recipe, phase: str, base: WeightFolder, adapter: WeightFolder, *, dtype: torch.dtype
) -> Backbone:
    """Return a Wan of open weights into which an adapter and its additions are merged, without a prompt of its own.

    Raise UserError if one of the two does not fit the recipe.
    """
    config = wan_config(recipe, phase)
    _check_base(config, base)
    with torch.random.fork_rng(devices=[]):
        model = _filled(config, None, base, dtype)
    load_tuning(model, adapter, recipe.lora)
    return model


def load_trained(recipe: Recipe, phase: str, codec: Codec, path: Path) -> Backbone:
    """Build a backbone with the weights of a phase's export or of a safetensors file: eval mode, frozen.

    The weights of a Wan have the precision of the phase, those of the paper's network are fp32.
    Raise UserError if the file cannot be read or does not fit the recipe.
    """
    dtype = dtype_of(recipe.for_phase(phase).precision)
    model = load_network(recipe, phase, WeightFolder(path, (path,)), codec, dtype=dtype)
    return model.eval().requires_grad_(False)
