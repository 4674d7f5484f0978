"""LoRA adapters: the experts on the editor (3.3), and the adapter that tunes open weights in place of all weights.

The experts are one adapter for lips and one for texture, of which at most one is active at a time. The adapter that
tunes is always active, and a part of the weights for everything but its own training.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xdub.config import EXPERTS, LoraConfig, Recipe, expert_of, has_adapter, is_target
from xdub.errors import UserError
from xdub.files.tensors import read_metadata, read_tensors, write_tensors
from xdub.files.weight_folder import WeightFolder, check_fit, check_values
from xdub.model.backbone import Backbone

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer


TUNED = "tuned"
"""Name of the adapter that tunes open weights."""
ALPHA = "lora_alpha"
"""Key of the header of such an adapter's file; the file alone has no other record of the strength of the adapter."""


def add_expert(model: Backbone, name: str, cfg: LoraConfig, *, fresh: bool = True) -> None:
    """Inject a fresh adapter called ``name`` with the rank, alpha and targets of the recipe's section ``lora``.

    A fresh adapter adds zero, so the model's output is unchanged. Only the parameters of adapters keep
    ``requires_grad``. Raise UserError for an unknown expert, or targets that match no layer; with ``fresh=False``, for
    an adapter that is filled with the weights of a file, only if none of them matches.
    """
    if name not in EXPERTS:
        raise UserError(f"expert {name!r}: use one of {', '.join(EXPERTS)}")
    _inject(model, name, cfg, fresh)


def adapter_of(recipe: Recipe, phase: str) -> str | None:
    """Return the name of the adapter that a phase trains; None for a phase that trains all weights."""
    return expert_of(phase) or (TUNED if has_adapter(recipe, phase) else None)


def adapt(model: Backbone, recipe: Recipe, phase: str) -> None:
    """Inject the fresh adapter that a phase trains, if it trains one."""
    name = adapter_of(recipe, phase)
    if name == TUNED:
        add_tuning(model, recipe.lora)
    elif name is not None:
        add_expert(model, name, recipe.lora)


def add_tuning(model: Backbone, cfg: LoraConfig, *, fresh: bool = True) -> None:
    """Inject the fresh adapter that tunes open weights; the network's additions are trained beside it.

    ``fresh`` as in `add_expert`.
    """
    _inject(model, TUNED, cfg, fresh)
    for name, parameter in model.named_parameters():
        if model.addition(name):
            parameter.requires_grad_()


def _inject(model: Backbone, name: str, cfg: LoraConfig, fresh: bool) -> None:
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    targets = _base_targets(model, name, cfg.targets, fresh)
    lora = PeftConfig(
        r=cfg.rank,
        # peft divides by the rank, so a float works although its annotation is int.
        lora_alpha=cfg.alpha,  # ty: ignore[invalid-argument-type]
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
    )
    with warnings.catch_warnings():
        # peft warns about a second adapter, which is intended.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(lora, model, adapter_name=name)
    for key, parameter in model.named_parameters():
        # peft gives an adapter the type of its layer, but a bf16 copy would lose the values that a file holds.
        if ".lora_" in key and key.endswith(f".{name}.weight"):
            parameter.data = parameter.data.float()
    set_expert(model, name)


def _base_targets(model: Backbone, name: str, targets: Sequence[str], fresh: bool) -> list[str]:
    """Return the layers in the blocks that adapter ``name`` changes, by their names without an earlier adapter.

    Additions are trained whole beside the adapter that tunes, so they have no adapter then. Every target of a
    ``fresh`` adapter must match a layer; one match is enough for weights, which may be of an earlier version.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    names = {name.replace(".base_layer", "") for name in linear if ".lora_" not in name}
    names = {layer for layer in names if layer.startswith("blocks.")}
    unmatched = [target for target in targets if not any(is_target(layer, target) for layer in names)]
    if fresh and unmatched:
        raise UserError(
            f"lora.targets: {', '.join(unmatched)} matches no layer; valid: {', '.join(model.lora_targets)}"
        )
    chosen = [
        layer
        for layer in names
        if any(is_target(layer, target) for target in targets)
        and not (name == TUNED and model.addition(layer))
    ]
    if not chosen:
        raise UserError(
            f"lora.targets={list(targets)} match no layer; valid: {', '.join(model.lora_targets)}"
        )
    return sorted(chosen)


def is_adapter(weights: WeightFolder) -> bool:
    """Return whether weights are an adapter that tuned open weights, and not a whole network."""
    return any(".lora_" in name for name in weights.shapes)


def load_tuning(model: Backbone, weights: WeightFolder, cfg: LoraConfig, *, merge: bool = True) -> None:
    """Load an adapter that tuned the open weights which the network has, and the additions beside it.

    With ``merge`` the adapter becomes a part of the weights, all of which can then be trained; else it stays trainable
    on frozen weights. Raise UserError if the adapter does not fit, or continues with another alpha.
    """
    alpha = float(read_metadata(weights.files[0]).get(ALPHA, cfg.alpha))
    if not merge and alpha != cfg.alpha:
        raise UserError(
            f"{weights.path} was trained with lora.alpha={alpha:g}, but the recipe has {cfg.alpha:g}; continue with "
            f"--set lora.alpha={alpha:g}"
        )
    add_tuning(model, replace(cfg, alpha=alpha), fresh=False)
    own = {file_name(name, TUNED): value for name, value in model.named_parameters() if value.requires_grad}
    # An editor does not need the part of a generator that embeds z_mask.
    needed = {
        name: shape
        for name, shape in weights.shapes.items()
        if model.own_tensor(name, torch.empty(shape, device="meta")) is not None
    }
    check_fit(weights.path, needed, {name: tuple(value.shape) for name, value in own.items()})
    with torch.no_grad():
        for name, value in weights.tensors():
            if name in needed:
                check_values(weights.path, name, value)
                own[name].copy_(value)
    if merge:
        merge_adapter(model)
        model.requires_grad_(True)


def merge_adapter(model: Backbone, adapter: str = TUNED) -> None:
    """Add an adapter to the network's weights, and remove all adapters."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            parent, _, child = name.rpartition(".")
            layer.merge(adapter_names=[adapter])
            setattr(model.get_submodule(parent), child, layer.get_base_layer())


def file_name(name: str, adapter: str) -> str:
    """Return the name in a file of a parameter of an adapter, or of another parameter."""
    return name.removesuffix(f".{adapter}.weight") if ".lora_" in name else name


def _lora_layers(model: nn.Module) -> list[LoraLayer]:
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def set_expert(model: nn.Module, name: str | None) -> None:
    """Activate an expert; None activates the base model alone. Base parameters stay frozen."""
    for layer in _lora_layers(model):
        layer.enable_adapters(name is not None)
        if name is not None:
            layer.set_adapter(name)


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a network without its adapters, on the CPU, under the names that it has without them."""
    return {
        name.replace(".base_layer", ""): value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }


def expert_state(model: Backbone, name: str) -> dict[str, Tensor]:
    """Return the adapter's tensors on the CPU, under names like ``blocks.0.ffn.0.lora_A``."""
    tag = f".{name}.weight"
    return {
        key.removesuffix(tag): value.detach().cpu().contiguous()
        for key, value in model.state_dict().items()
        if ".lora_" in key and key.endswith(tag)
    }


def save_expert(model: Backbone, name: str, path: Path) -> None:
    """Write one adapter as safetensors."""
    write_tensors(expert_state(model, name), path)


def load_expert(model: Backbone, name: str, path: Path, cfg: LoraConfig) -> None:
    """Inject adapter ``name`` with the weights of a file of `save_expert`. Raise UserError if they do not fit."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such adapter file")
    fill_expert(model, name, path, read_tensors(path), cfg)


def fill_expert(
    model: Backbone, name: str, path: Path, tensors: Mapping[str, Tensor], cfg: LoraConfig
) -> None:
    """Inject adapter ``name`` with tensors of `expert_state` from ``path``. Raise UserError if they do not fit."""
    add_expert(model, name, cfg, fresh=False)
    state = {f"{key}.{name}.weight": value for key, value in tensors.items()}
    own = model.state_dict()
    wrong = [key for key in state if key not in own or own[key].shape != state[key].shape]
    if wrong or len(state) != len(expert_state(model, name)):
        raise UserError(f"{path} does not fit the model and lora.rank={cfg.rank}: {wrong[:3]}")
    for key, value in tensors.items():
        check_values(path, key, value)
    model.load_state_dict(state, strict=False)
