"""LoRA experts on the editor (3.3): one adapter for lips, one for texture, at most one active at a time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from xdub.config import EXPERTS, LoraConfig
from xdub.errors import UserError
from xdub.files.tensors import read_tensors, write_tensors
from xdub.model.backbone import Backbone

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer


def add_expert(model: Backbone, name: str, cfg: LoraConfig) -> None:
    """Inject a fresh adapter called ``name`` with the rank, alpha and targets of the recipe's section ``lora``.

    A fresh adapter adds zero, so the model's output is unchanged. Only the parameters of adapters keep
    ``requires_grad``. Raise UserError for an unknown expert, or targets that match no layer.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    if name not in EXPERTS:
        raise UserError(f"expert {name!r}: use one of {', '.join(EXPERTS)}")
    targets = _base_targets(model, cfg.targets)
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
    set_expert(model, name)


def _base_targets(model: Backbone, endings: Sequence[str]) -> list[str]:
    """Return the adapted layers' names in the blocks, without an earlier adapter's ``base_layer``."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    names = {name.replace(".base_layer", "") for name in linear if ".lora_" not in name}
    chosen = [
        name
        for name in names
        if name.startswith("blocks.") and any(name.endswith(f".{ending}") for ending in endings)
    ]
    if not chosen:
        raise UserError(
            f"lora.targets={list(endings)} match no layer; valid: {', '.join(model.lora_targets)}"
        )
    return sorted(chosen)


def _lora_layers(model: nn.Module) -> list[LoraLayer]:
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def set_expert(model: nn.Module, name: str | None) -> None:
    """Activate an expert; None activates the base model alone. Base parameters stay frozen."""
    for layer in _lora_layers(model):
        layer.enable_adapters(name is not None)
        if name is not None:
            layer.set_adapter(name)


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
    add_expert(model, name, cfg)
    state = {f"{key}.{name}.weight": value for key, value in read_tensors(path).items()}
    own = model.state_dict()
    wrong = [key for key in state if key not in own or own[key].shape != state[key].shape]
    if wrong or len(state) != len(expert_state(model, name)):
        raise UserError(f"{path} does not fit the model and lora.rank={cfg.rank}: {wrong[:3]}")
    model.load_state_dict(state, strict=False)
