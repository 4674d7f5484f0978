"""LoRA experts on the editor (3.3): one adapter for lips, one for texture, at most one active at a time."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from xdub.config import EXPERTS
from xdub.errors import UserError
from xdub.model.dit import VideoDiT
from xdub.model.tensor_file import read_tensors


def add_expert(model: VideoDiT, name: str, cfg) -> None:
    """Inject a fresh adapter called ``name`` (rank, alpha, targets from the recipe's ``lora``); the model is unchanged
    until it is trained. Only adapters' parameters keep ``requires_grad``."""
    from peft import LoraConfig, inject_adapter_in_model

    if name not in EXPERTS:
        raise UserError(f"expert {name!r}: use one of {', '.join(EXPERTS)}")
    targets = _base_targets(model, cfg.targets)
    lora = LoraConfig(r=cfg.rank, lora_alpha=cfg.alpha, target_modules=targets, lora_dropout=0.0, bias="none")
    with warnings.catch_warnings():  # peft asks whether a second adapter is meant: it is
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(lora, model, adapter_name=name)
    set_expert(model, name)


def _base_targets(model: VideoDiT, suffixes) -> list[str]:
    """Targets by their names without an earlier adapter's ``base_layer``."""
    names = {name.replace(".base_layer", "") for name in _linear_names(model) if ".lora_" not in name}
    chosen = [n for n in names if n.startswith("blocks.") and any(n.endswith("." + s) for s in suffixes)]
    if not chosen:
        raise UserError(f"lora.targets={list(suffixes)} match no layer; valid: qkv, q, kv, out, ffn.0, ffn.2")
    return sorted(chosen)


def _linear_names(model: VideoDiT) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]


def _lora_layers(model: VideoDiT):
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def set_expert(model: VideoDiT, name: str | None) -> None:
    """Switch the active expert; ``None`` is the plain base model. Base parameters stay frozen."""
    for layer in _lora_layers(model):
        layer.enable_adapters(name is not None)
        if name is not None:
            layer.set_adapter(name)


def expert_state(model: VideoDiT, name: str) -> dict[str, Tensor]:
    """The adapter's tensors, e.g. ``blocks.0.ffn.0.lora_A``, on CPU."""
    tag = f".{name}.weight"
    return {
        key.removesuffix(tag): value.detach().cpu().contiguous()
        for key, value in model.state_dict().items()
        if ".lora_" in key and key.endswith(tag)
    }


def save_expert(model: VideoDiT, name: str, path: Path) -> None:
    """Write one adapter as safetensors."""
    save_file(expert_state(model, name), path)


def load_expert(model: VideoDiT, name: str, path: Path, cfg) -> None:
    """Inject adapter ``name`` and fill it from a file of :func:`save_expert`."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such adapter file")
    add_expert(model, name, cfg)
    state = {f"{key}.{name}.weight": value for key, value in read_tensors(path).items()}
    own = model.state_dict()
    wrong = [key for key in state if key not in own or own[key].shape != state[key].shape]
    if wrong or len(state) != len(expert_state(model, name)):
        raise UserError(f"{path} does not fit the model and lora.rank={cfg.rank}: {wrong[:3]}")
    model.load_state_dict(state, strict=False)
